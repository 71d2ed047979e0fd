"""Start a run from another run's checkpoint, and hold parts of a model constant: `pretrain --init-from WORKDIR`.

A model config names its numbered layers, from the input on, as patterns over parameter paths (`layer_patterns`); what is in none of
them (the output layer, the standardisation of the input) starts anew, unless asked for otherwise. A pattern is a name of a
path such as `layer_1/conv/kernel`, of what lies above it (`layer_1`), or a shell pattern (`*/norm/*`).

Copying and freezing follow Yosinski et al. (2014): copy n layers; hold them constant or not; the layers above them start from
the source (the default here) or from random values (their AnB networks).
"""

import dataclasses
import fnmatch

import jax
import numpy as np

from ser_jax.config import ABOVE, HEAD
from ser_jax.errors import UsageError, UserError
from ser_jax.files import read_json

HEARD = ("train", "dev", "source")  # parts of pretrained_on.parquet that shaped a checkpoint


def matches(path, patterns):
    """Whether a path, or one above it, is named by one of the patterns (each may be several, separated by commas)."""
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for group in patterns for pattern in group.split(",") for name in above)


def flat(tree):
    """{path: leaf} of a tree of nested dicts; a path is its keys joined by "/"."""
    return {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def replaced(tree, leaves):
    """`tree` with the leaves {path: array} put in, each with the type and the sharding of the one it replaces."""
    def put(path, leaf):
        name = "/".join(key.key for key in path)
        return jax.device_put(np.asarray(leaves[name], leaf.dtype), leaf.sharding) if name in leaves else leaf

    return jax.tree_util.tree_map_with_path(put, tree)


def frozen(experiment, params):
    """The paths of `params` that are held constant, from the config alone.

    Raises:
      UsageError: a pattern that names nothing, more layers than there are, nothing left to train.
    """
    transfer, layers = experiment.transfer, _layers(experiment)
    if not 0 <= transfer.freeze_layers <= len(layers):
        raise UsageError(f"transfer.freeze_layers={transfer.freeze_layers}: this model has {len(layers)} layers: {' | '.join(layers)}")
    patterns, paths = (*layers[:transfer.freeze_layers], *transfer.freeze), flat(params)
    for pattern in transfer.freeze:
        if not any(matches(path, [pattern]) for path in paths):
            raise UsageError(f"transfer.freeze={pattern} names no parameter; there are {', '.join(sorted(paths)[:12])} …")
    if not transfer.init_from:
        for name in ("above", "head", "reinit", "step"):
            if getattr(transfer, name) != getattr(type(transfer)(), name):
                raise UsageError(f"transfer.{name} says what to take from another run, and none is named: --init-from WORKDIR")
    found = {path for path in paths if matches(path, patterns)}
    if found == paths.keys():
        raise UsageError("transfer: every parameter is frozen, nothing is left to train; freeze fewer layers")
    return found


def split(params, frozen_paths):
    """(trained, frozen): two trees like `params` with None in the place of the other's leaves."""
    def keep(wanted):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if ("/".join(key.key for key in path) in frozen_paths) == wanted else None, params)

    return keep(False), keep(True)


def join(trained, constant):
    """Inverse of `split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, constant, is_leaf=lambda leaf: leaf is None)


@dataclasses.dataclass(frozen=True)
class Carried:
    """What comes from the source: `params` and `stats` are {path: array}, `lines` say what became of every leaf."""

    params: dict
    stats: dict
    lines: list


def carry(experiment, params, stats, source, measured=()):
    """Finds the leaf of the source for every leaf of a new model.

    Args:
      experiment: config.Experiment of the new run.
      params, stats: its trees; shapes are enough.
      source: checkpoint.Trained.
      measured: paths of statistics that the training part gives (`calibrate`).

    Raises:
      UserError: a leaf of a numbered layer that the source lacks or has in another shape, or has and the new model lacks,
        and no pattern of `transfer.reinit` says so.
    """
    transfer, layers = experiment.transfer, _layers(experiment)
    held = frozen(experiment, params)
    prefix = getattr(experiment.model, "carries", "")
    theirs = {prefix + path: leaf for tree in (source.params, source.stats) for path, leaf in flat(tree).items()}
    for pattern in transfer.reinit:
        if not any(matches(path, [pattern]) for path in (*flat(params), *flat(stats), *theirs)):
            raise UsageError(f"transfer.reinit={pattern} names no parameter, here or in the source; there are "
                             f"{', '.join(sorted(flat(params))[:12])} …")
    kept = layers if transfer.above == "source" else layers[:transfer.freeze_layers]
    status, found, wrong = {}, ({}, {}), []
    for number, tree in enumerate((params, stats)):
        for path, leaf in flat(tree).items():
            asked = matches(path, kept) or path in held or (transfer.head == "source" and not matches(path, layers))
            if path in measured:
                status[path] = "measured"
            elif not asked or matches(path, transfer.reinit):
                status[path] = "new, frozen" if path in held else "new"
            elif path not in theirs:
                wrong.append(f"{path} {leaf.shape} is not in the source")
            elif theirs[path].shape != leaf.shape:
                wrong.append(f"{path} is {leaf.shape}, in the source {theirs[path].shape}")
            else:
                found[number][path] = theirs[path]
                status[path] = "loaded, frozen" if path in held else "loaded"
    left = sorted(theirs.keys() - status.keys())
    if transfer.above == "source":
        wrong += [f"{path} of the source has no place here" for path in left if not matches(path, transfer.reinit)
                  and matches(path.removeprefix(prefix), source.experiment.model.layer_patterns)]
    if wrong:
        raise UserError(f"--init-from {source.workdir}: {'; '.join(wrong[:3])}{' …' if len(wrong) > 3 else ''}; make the models "
                        "equal, or name what shall start anew: --set transfer.reinit=PATTERN")
    return Carried(*found, _told(status, left, flat(params) | flat(stats)))


def provenance(experiment):
    """(what config.json tells of the source, or None; list of one table of what it had heard, its part "source", or none)."""
    if not experiment.transfer.init_from:
        return None, []
    source = _source(experiment)
    heard = source.utterances[source.utterances["part"].isin(HEARD)].assign(part="source")
    return {"workdir": str(source.workdir), "experiment": source.experiment.name, "step": source.step, "hash": source.hash,
            "synthetic": source.synthetic}, [heard]


def begin(experiment, network, state, workdir, corpora, table, say):
    """What a new run starts from: {"params", "stats"} with the leaves of the source, and statistics of the training part.

    Args:
      network: network.Network of the experiment.
      state: freshly initialised; its shardings are kept.
      workdir: of the new run; its config.json names the source.
      corpora, table: PreparedCorpus list and the table of `splits.assign`.
      say: called with each line that says what became of the parameters.
    """
    params, stats = state["params"], state["stats"]
    measured = network.task.calibrate(corpora, table) if hasattr(network.task, "calibrate") else {}
    if experiment.transfer.init_from:
        source = _source(experiment)
        recorded = read_json(workdir / "config.json").get("source") or {}
        if recorded.get("hash") != source.hash:
            raise UserError(f"{source.workdir} has another checkpoint than when {workdir} was begun; choose another --workdir")
        carried = carry(experiment, params, stats, source, measured)
        params, stats = replaced(params, carried.params), replaced(stats, carried.stats)
        say(f"from step {source.step} of {source.workdir} ({source.experiment.name}):")
        for line in carried.lines:
            say(line)
    elif network.frozen:
        say(f"frozen at random values: {', '.join(sorted(network.frozen))}")
    return {"params": params, "stats": replaced(stats, measured)}


def _source(experiment):
    from ser_jax.checkpoint import Trained  # which needs the network, which needs this file

    return Trained(experiment.transfer.init_from, experiment.transfer.step)


def _layers(experiment):
    transfer = experiment.transfer
    for name, known in (("above", ABOVE), ("head", HEAD)):
        if getattr(transfer, name) not in known:
            raise UsageError(f"transfer.{name}={getattr(transfer, name)}: choose {' or '.join(known)}")
    return experiment.model.layer_patterns


def _told(status, left, leaves):
    """Lines: every leaf with what became of it, leaves of one module and fate together."""
    groups = {}
    for path, fate in [*status.items(), *((path, "left behind") for path in left)]:
        module, _, leaf = path.rpartition("/")
        groups.setdefault((module, fate), []).append((leaf, int(np.prod(leaves[path].shape)) if path in leaves else 0))
    return [f"  {fate:14s} {module}: {' '.join(name for name, _ in names)}"
            + (f" ({sum(count for _, count in names):,})" if fate != "left behind" else "")
            for (module, fate), names in sorted(groups.items())]
