"""Run by tests in a process of eight simulated devices: writes a gradient and embeddings into a folder."""

import sys
from pathlib import Path

import jax
import numpy as np
import test_export
import test_models

from ser_jax import sharding


def gradient(out):
    net = test_models.Net(test_models.NETS["A"])
    mesh = sharding.mesh()
    batch = dict(zip("xml", test_models.ragged_batch(net.config), strict=True))
    batch = sharding.put(batch, mesh)
    params, stats = jax.device_put((net.params, net.stats), sharding.replicated(mesh))
    assert len(batch["x"].sharding.device_set) == 8
    (loss, _), tree = net.gradient(params, stats, batch["x"], batch["m"], batch["l"])
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    np.savez(out / "gradient.npz", loss=loss, **{jax.tree_util.keystr(path): leaf for path, leaf in leaves})


def embeddings(workdir, corpus, out):
    np.savez(out / "embeddings.npz", **test_export.embeddings_of_all(workdir, corpus, devices=jax.devices()))


if __name__ == "__main__":
    assert jax.device_count() == 8
    workdir, corpus, out = map(Path, sys.argv[1:])
    embeddings(workdir, corpus, out)
    gradient(out)
