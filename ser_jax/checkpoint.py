"""Checkpoints of a training run; the only file that imports Orbax (v1, whose names may still move)."""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ser_jax import config as config_module
from ser_jax import transfer
from ser_jax.errors import UsageError, UserError
from ser_jax.files import read_json
from ser_jax.network import Network

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of a workdir: the latest few and the best.

    A checkpoint is labelled by the number of completed steps and has two parts: `model` (params and stats, what
    evaluation and export read) and `training` (optimiser state and step). Orbax commits it by one rename; what a killed
    save leaves behind is ignored, and removed when training opens the folder again.

    Args:
      workdir: folder of the run.
      keep: number of latest checkpoints kept.
      metric: evaluation metric by which the best is kept (larger is better).
    """

    def __init__(self, workdir, keep, metric):
        self.folder = Path(workdir).resolve() / FOLDER
        policies = ocp.training.preservation_policies
        best = policies.BestN(get_metric_fn=lambda metrics: metrics[metric], n=1, keep_checkpoints_without_metrics=False)
        self._metric = metric
        if jax.process_index() == 0:
            _put_back(self.folder)
        self._checkpointer = ocp.training.Checkpointer(
            self.folder,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with full_disk_named(self.folder):
            self._checkpointer.close()

    @property
    def latest(self):
        """Number of completed steps of the newest committed checkpoint, or None."""
        return self._checkpointer.latest.step if self._checkpointer.latest else None

    @property
    def scored(self):
        """Whether the newest committed checkpoint carries metrics, i.e. was saved after an evaluation of its step."""
        return bool(self._checkpointer.latest and self._checkpointer.latest.metrics)

    @property
    def best(self):
        """The best value of the metric among the kept checkpoints, or −inf."""
        values = [info.metrics[self._metric] for info in self._checkpointer.checkpoints if info.metrics]
        return max(values, default=-np.inf)

    def save(self, step, state, metrics=None, overwrite=False):
        """Starts saving `state` (dict of params, stats, opt, step); the write goes on in the background.

        Args:
          overwrite: replace the checkpoint of this step.
        """
        parts = {"model": {name: state[name] for name in ("params", "stats")},
                 "training": {name: state[name] for name in ("opt", "step")}}
        with full_disk_named(self.folder), self._kept(step) if overwrite else contextlib.nullcontext():
            self._checkpointer.save_checkpointables_async(step, parts, force=True, overwrite=overwrite, metrics=metrics)
            if overwrite:
                self._checkpointer.wait()

    @contextlib.contextmanager
    def _kept(self, step):
        """Keeps the checkpoint of a step until the one that replaces it is committed: Orbax removes it first.

        Hard links take no space; a second name of the files outlives what Orbax does to the first.
        """
        place, aside = self.folder / str(step), _aside(self.folder, step)
        if jax.process_index() != 0 or not place.is_dir():
            yield
            return
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(place, aside, copy_function=os.link)
        except (OSError, shutil.Error):  # a file system without hard links: as safe as Orbax is
            shutil.rmtree(aside, ignore_errors=True)
        try:
            yield
        except BaseException:
            _put_back(self.folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)

    def wait(self):
        """Blocks until what was saved is committed."""
        with full_disk_named(self.folder):
            self._checkpointer.wait()

    def restore(self, target):
        """The newest checkpoint as a state like `target` (ShapeDtypeStructs with the shardings wanted now)."""
        parts = {"model": {name: target[name] for name in ("params", "stats")},
                 "training": {name: target[name] for name in ("opt", "step")}}
        loaded = self._checkpointer.load_checkpointables(self.latest, parts)
        return {**loaded["model"], **loaded["training"]}


def _aside(folder, step):
    return folder.parent / f".{FOLDER}.{step}"


def _put_back(folder):
    """Gives the checkpoints that were kept aside their place again, where what should replace them is not committed."""
    for aside in folder.parent.glob(f".{FOLDER}.*"):
        place = folder / aside.suffix[1:]
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(aside, place)


class Trained:
    """A trained model, read from a workdir for evaluation or export.

    Args:
      workdir: folder of a pretraining run.
      step: "best", "last" or a number of steps.

    Attributes:
      experiment, network, params, stats: as trained; arrays on the host.
      step: completed steps of the checkpoint.
      synthetic: whether a corpus it was trained on is the embedded one.
      hash: of the values of params and stats, independent of how they are stored.

    Raises:
      UserError: no such workdir or checkpoint.
    """

    def __init__(self, workdir, step="best"):
        self.workdir = Path(workdir)
        if not (self.workdir / "config.json").is_file():
            raise UserError(f"{workdir} is not a pretraining workdir (no config.json); make one with `ser-jax pretrain`")
        self.experiment = config_module.load(self.workdir / "config.json")
        self.network = Network(self.experiment)
        if not (self.workdir / FOLDER).is_dir():
            raise UserError(f"{workdir} has no {FOLDER}/; copy the whole workdir, or run its `ser-jax pretrain` again")
        with ocp.training.Checkpointer(self.workdir.resolve() / FOLDER) as checkpointer:
            steps = {info.step: info.metrics for info in checkpointer.checkpoints}
            self.step = _choose(steps, step, self.network.task.eval_metric, workdir)
            abstract = jax.eval_shape(lambda: self.network.init(0))
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), abstract)
            try:
                parts = {"model": dict(zip(("params", "stats"), target, strict=True))}
                model = checkpointer.load_checkpointables(self.step, parts)["model"]
            except Exception as error:  # Orbax has no error of its own for a damaged checkpoint
                raise UserError(f"{workdir}: the checkpoint of step {self.step} cannot be read "
                                f"({' '.join(str(error).split())[:100]}); copy the whole workdir, or choose another --step"
                                ) from error
        self.params, self.stats = model["params"], model["stats"]
        self.hash = tree_hash(model)
        told = read_json(self.workdir / "config.json")
        self.synthetic = any(one and one["synthetic"] for one in (*told.get("prepared", []), told.get("source")))

    @functools.cached_property
    def utterances(self):
        """pandas.DataFrame of the utterances of the training corpora, with their part: train, dev, test or ""; and of
        what the run it started from had heard ("source")."""
        import pandas
        path = self.workdir / "pretrained_on.parquet"
        if not path.is_file():
            raise UserError(f"{path} is missing, so what the checkpoint was trained on is unknown; copy the whole workdir")
        try:
            return pandas.read_parquet(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:100]}); copy the whole workdir") from None

    @functools.cached_property
    def pretrained_on(self):
        """Hashes of the audio of all utterances that training or the choice of the checkpoint has seen."""
        return set(self.utterances.loc[self.utterances["part"].isin(transfer.HEARD), "audio_sha256"])


def _choose(steps, wanted, metric, workdir):
    if not steps:
        raise UserError(f"{workdir} has no checkpoint yet; its `ser-jax pretrain` has not saved one")
    if wanted == "last":
        return max(steps)
    if wanted == "best":
        scored = {step: metrics[metric] for step, metrics in steps.items() if metrics}
        return max(scored, key=lambda step: (scored[step], step)) if scored else max(steps)
    if not str(wanted).isdigit() or int(wanted) not in steps:
        raise UsageError(f"--step {wanted}: {workdir} has checkpoints of steps {sorted(steps)} (or say best, last)")
    return int(wanted)


def tree_hash(tree):
    """sha256 (16 hex digits) of the names, shapes, types and values of a tree of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        leaf = np.asarray(leaf)
        digest.update(json.dumps([jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype)]).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


class full_disk_named:
    """Turns a full disk, however deep Orbax wraps it, into one line that names the folder.

    Orbax also logs the traceback of each thread that failed; of a full disk these are left out (unless SER_JAX_DEBUG).
    """

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        if not os.environ.get("SER_JAX_DEBUG"):
            logging.getLogger("absl").addFilter(_not_of_full_disk)  # adding it again does nothing
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, Exception) and not isinstance(error, UserError) and _disk_is_full(error):
            raise UserError(f"no space left while saving to {self.folder}; the last committed checkpoint is intact, "
                            "free some space and run the same command again") from error
        return False


def _disk_is_full(error):
    texts = ("No space left on device", "File too large", "Disk quota exceeded")  # TensorStore's errors carry no errno
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) or any(text in str(error) for text in texts):
            return True
        error = error.__cause__ or error.__context__
    return False


def _not_of_full_disk(record):
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not _disk_is_full(error)
