"""One mesh axis, `data`: how batches and state lie on the devices of all processes."""

import os

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ser_jax.errors import UsageError, UserError

SMALL = 2**14  # elements; smaller arrays are replicated under fsdp too, their gather would cost more than it saves


def initialize_from_environment(timeout=120):
    """Joins the other processes of a run that `launch/` started; does nothing in a run of one process.

    Called by the command line alone: a library that initialises would break a second use in one process.

    Raises:
      UserError: the coordinator does not answer within `timeout` seconds.
    """
    address = os.environ.get("SER_JAX_COORDINATOR")
    if not address:
        return
    count, process = int(os.environ["SER_JAX_NUM_PROCESSES"]), int(os.environ["SER_JAX_PROCESS_ID"])
    if jax.config.jax_platforms == "cpu" or os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(address, count, process, initialization_timeout=timeout)
    except RuntimeError as error:
        raise UserError(f"process {process} of {count} could not join {address}: {str(error).splitlines()[0]}") from None


def mesh(devices=None):
    """A mesh of one `data` axis over `devices` (default: all devices of all processes)."""
    devices = jax.devices() if devices is None else devices
    return jax.sharding.Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh):
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh):
    return NamedSharding(mesh, PartitionSpec("data"))


def leaf_sharding(mesh, mode, leaf):
    """Sharding of one leaf of the state.

    Args:
      mode: "data": replicated. "fsdp": the largest axis that the device count divides lies on `data`.
    """
    if mode not in ("data", "fsdp"):
        raise UsageError(f"train.sharding={mode}: choose data or fsdp")
    if mode == "fsdp" and leaf.size >= SMALL:
        for axis in sorted(range(leaf.ndim), key=lambda axis: -leaf.shape[axis]):
            if leaf.shape[axis] % mesh.size == 0:
                return NamedSharding(mesh, PartitionSpec(*([None] * axis), "data"))
    return replicated(mesh)


def put(batch, mesh):
    """This process' rows of a batch -> global arrays sharded over the batch axis."""
    sharding = over_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def check_batch_size(name, batch_size, mesh):
    if batch_size % mesh.size:
        raise UsageError(f"{name}={batch_size} is not divisible by {mesh.size} devices; "
                         f"try {max(1, round(batch_size / mesh.size)) * mesh.size}")


def use_compilation_cache():
    """Compiled programs are kept in $SER_JAX_CACHE (default ~/.cache/ser_jax), so a restart does not compile again."""
    folder = os.environ.get("SER_JAX_CACHE", os.path.expanduser("~/.cache/ser_jax"))
    jax.config.update("jax_compilation_cache_dir", os.path.join(folder, "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
