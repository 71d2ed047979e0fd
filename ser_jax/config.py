"""Experiment configuration: frozen dataclasses, one Python file per experiment, `--set a.b=c` overrides, JSON round trip.

Nothing here imports jax: a config must be readable by `--help`, by tests and by tools without an accelerator.
"""

import dataclasses
import importlib.util
import json
import sys
import typing
from pathlib import Path
from typing import Any

from ser_jax.errors import UsageError, UserError, suggestion
from ser_jax.options import convert, name_of

ABOVE, HEAD = ("source", "random"), ("random", "source")  # see Transfer


@dataclasses.dataclass(frozen=True)
class Data:
    """Which prepared corpora a model is trained on.

    Attributes:
      corpora: folders made by `ser-jax prepare`; several train together.
      weights: share of each corpus in the stream, e.g. (0.7, 0.3); empty = every utterance equally often.
      splits: official partitions to train on, e.g. ("train-clean-100",); empty = all.
      eval_splits: partitions for the periodic evaluation; empty = hold speakers out of `splits` instead.
      holdout: share of speakers kept out of training for the periodic evaluation (0 = none), balanced by gender.
      test: share of speakers that neither training nor the periodic evaluation sees; `ser-jax evaluate` scores them.
      dev_speakers, test_speakers: speaker ids, or sessions, that are held out by name instead of by share.
      seed: of the order, the crops and the hold-out.
      workers: Grain worker processes (0 = reader threads only, the faster choice for prepared corpora on few cores).
    """

    corpora: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    splits: tuple[str, ...] = ()
    eval_splits: tuple[str, ...] = ()
    holdout: float = 0.2
    test: float = 0.0
    dev_speakers: tuple[str, ...] = ()
    test_speakers: tuple[str, ...] = ()
    seed: int = 0
    workers: int = 0


@dataclasses.dataclass(frozen=True)
class Optim:
    """Optimiser and schedule; see `ser_jax.optim`.

    Attributes:
      epsilon: that of adam, adamw and rmsprop.
      weight_decay: that of adamw, decoupled from the gradient.
      clip_norm, clip_value: bound the norm of the whole gradient, and each of its elements to ±; 0 = off.
      average_decay: of the squared gradients of rmsprop (ρ).
      l2: λ of the penalty λ · Σ w² on the parameters that `l2_on` names (patterns, see `ser_jax.transfer`); 0 = off.
      plateau: so many periodic evaluations in a row without a better score halve the learning rate; 0 = never.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    decay: str = "constant"
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    clip_value: float = 0.0
    epsilon: float = 1e-7
    average_decay: float = 0.9
    l2: float = 0.0
    l2_on: tuple[str, ...] = ("*/kernel",)
    plateau: int = 0


@dataclasses.dataclass(frozen=True)
class Train:
    """The loop.

    Attributes:
      steps: optimiser steps in all.
      batch_size: examples per step over all devices and processes.
      seed: of the parameters, of dropout and of the augmentation.
      log_every, eval_every, save_every: steps; 0 = only at the end.
      patience: the run ends early after so many periodic evaluations in a row without a better score; 0 = never.
      keep: number of latest checkpoints kept, besides the best one.
      sharding: "data" (replicated parameters) or "fsdp" (parameters and optimiser state sharded too).
      profile: write a profiler trace of steps 10–15.
      tensorboard: also write TensorBoard events (extra [tensorboard]).
    """

    steps: int = 1000
    batch_size: int = 32
    seed: int = 0
    log_every: int = 10
    eval_every: int = 100
    save_every: int = 100
    patience: int = 0
    keep: int = 2
    sharding: str = "data"
    profile: bool = False
    tensorboard: bool = False


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Start from another run, and hold layers constant; see `ser_jax.transfer`.

    Attributes:
      init_from: workdir of the source; "" = random start.
      step: its checkpoint: best, last or a number of steps.
      freeze_layers: number of the model's layers, from the input on, that are held constant.
      freeze: patterns of more parameters that are.
      above: what the layers above `freeze_layers` start from: "source" or "random".
      head: what the output layer starts from: "random" or "source" (another corpus, same task).
      reinit: patterns of parameters that start from random values whatever the source has.
    """

    init_from: str = ""
    step: str = "best"
    freeze_layers: int = 0
    freeze: tuple[str, ...] = ()
    above: str = "source"
    head: str = "random"
    reinit: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run = one row of a table. `model` and `task` are the config dataclasses of `ser_jax.models` and `ser_jax.tasks`."""

    name: str
    model: Any
    task: Any
    data: Data = Data()
    optim: Optim = Optim()
    train: Train = Train()
    transfer: Transfer = Transfer()

    @property
    def follows_scores(self):
        """Whether the periodic evaluations change the run (learning rate, early stop): their record is in the state then."""
        return bool(self.optim.plateau or self.train.patience)


def load(path, overrides=()):
    """Reads an experiment from a config file (`config()` in a .py file, or a workdir's config.json) and applies overrides.

    Raises:
      UsageError: no such file, no `config()` in it, an unknown key or a value of the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        there = [str(near) for near in Path("configs").rglob("*.py")]
        raise UsageError(f"no config file {path}{suggestion(path, there)}; configs/ has those of the project")
    if path.suffix == ".json":
        try:
            experiment = from_dict(dict(json.loads(path.read_text(encoding="utf-8"))), str(path))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: not the config.json of a run ({error})") from None
    elif path.suffix != ".py":
        raise UsageError(f"{path}: a config is a .py file, or the config.json of a run")
    else:
        root = str(Path(__file__).parents[1])  # so that a config can start from another: `from configs.pretrain… import`
        if root not in sys.path:
            sys.path.append(root)
        spec = importlib.util.spec_from_file_location(f"ser_jax_config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, "config"):
            raise UsageError(f"{path} has no function config() that returns an Experiment")
        experiment = module.config()
    return override(experiment, overrides)


def complete(experiment):
    """With the fields that a task takes from the files it names, and that model and task take from the run they start from, so
    that the config of a run says all of a checkpoint.

    Raises:
      UserError: the run to start from is none.
    """
    model, task, source = experiment.model, experiment.task, None
    if experiment.transfer.init_from and any(hasattr(part, "complete_from") for part in (model, task)):
        path = Path(experiment.transfer.init_from) / "config.json"
        if not path.is_file():
            raise UserError(f"{path.parent} is not a pretraining workdir (no config.json); make one with `ser-jax pretrain`")
        source = load(path)
    if hasattr(task, "complete"):
        task = task.complete()
    if hasattr(task, "complete_from"):
        task = task.complete_from(source)
    if hasattr(model, "complete_from"):
        model = model.complete_from(source, task)
    return dataclasses.replace(experiment, model=model, task=task)


def override(experiment, assignments):
    """Applies `a.b=c` assignments; the value is read as the type of the field it replaces.

    Those that reach into a config that is still to be filled in (`complete`) come after the others, and fill it in first.
    """
    later = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: write it as name=value, e.g. --set train.steps=100")
        key, text = key.strip(), text.strip()
        if _is_empty(experiment, key.split(".")):
            later.append((key, text))
        else:
            experiment = _replace(experiment, key.split("."), text, key)
    if later:
        experiment = complete(experiment)
    for key, text in later:
        experiment = _replace(experiment, key.split("."), text, key)
    return experiment


def _is_empty(node, names):
    """Whether the field in which the last of the names is looked for is a config that is None."""
    for name in names[:-1]:
        node = getattr(node, name, "")
    return node is None


def _replace(node, names, text, key):
    fields = {field.name for field in dataclasses.fields(node)}
    name = names[0]
    if name not in fields:
        raise UsageError(f"--set {key}: no field {name!r} in {type(node).__name__}{suggestion(name, fields)}; "
                         f"known: {', '.join(sorted(fields))}")
    value = getattr(node, name)
    if len(names) > 1:
        if not dataclasses.is_dataclass(value):
            raise UsageError(f"--set {key}: {name} has no fields of its own")
        return dataclasses.replace(node, **{name: _replace(value, names[1:], text, key)})
    if dataclasses.is_dataclass(value):
        inner = ", ".join(field.name for field in dataclasses.fields(value))
        raise UsageError(f"--set {key}: name one of its fields: {inner}")
    hint = typing.get_type_hints(type(node))[name]
    if hint is Any:
        raise UsageError(f"--set {key}: is a config of its own, filled in from --init-from; set its fields: {key}.NAME=VALUE")
    return dataclasses.replace(node, **{name: _coerce(text, hint, key)})


def _coerce(text, kind, key):
    """Text to `kind`, see `options.convert`."""
    try:
        return convert(text, kind)
    except ValueError as error:
        text, kind = error.args
        raise UsageError(f"--set {key}={text}: not a value of type {name_of(kind)}") from None


def to_dict(experiment):
    """JSON-able form; `model` and `task`, and configs within them, carry the registry key of their class as `kind`."""
    value = dataclasses.asdict(experiment)
    for part in ("model", "task"):
        value[part] = _with_kinds(getattr(experiment, part), part)
    return json.loads(json.dumps(value))  # tuples become lists, as they will be when read back


def _with_kinds(config, part):
    value = dataclasses.asdict(config)
    inner = {name: getattr(config, name) for name in value if dataclasses.is_dataclass(getattr(config, name))}
    return {**value, **{name: _with_kinds(each, part) for name, each in inner.items()}, "kind": kind_of(config, part)}


def from_dict(value, where="config"):
    """Inverse of `to_dict`."""
    parts = {name: value.get(name) for name in ("name", "model", "task", "data", "optim", "train")}
    try:
        for part in ("model", "task"):
            parts[part] = _of_kind(parts[part], part)
        parts["transfer"] = value.get("transfer", {})  # runs older than that part have none
        for part, kind in (("data", Data), ("optim", Optim), ("train", Train), ("transfer", Transfer)):
            parts[part] = _build(kind, parts[part])
        return Experiment(**parts)
    except (KeyError, TypeError) as error:
        raise UsageError(f"{where}: not an experiment of this version of ser_jax ({error})") from None


def kind_of(config, part):
    """The registry key of a model or task config."""
    for kind, entry in _registry(part).items():
        if type(config) is entry:
            return kind
    raise UsageError(f"{type(config).__name__} is not registered in ser_jax/{part}s/__init__.py")


def _of_kind(value, part):
    """Inverse of `_with_kinds`."""
    fields = {name: _of_kind(each, part) if isinstance(each, dict) else each for name, each in value.items()}
    return _build(_registry(part)[fields.pop("kind")], fields)


def _build(kind, fields):
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def _registry(part):
    if part == "model":
        from ser_jax.models import MODELS
        return MODELS
    from ser_jax.tasks import TASKS
    return TASKS
