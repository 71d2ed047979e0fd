"""Pretrain an encoder: `ser-jax pretrain configs/pretrain/….py --workdir DIR`.

The whole run is a function of (config, corpora): the order of the utterances, the crops, the augmentation and dropout are
functions of (seed, step), so a run that was killed continues bit for bit on the same devices.
"""

import argparse
import fcntl
import json
import os
import signal
from pathlib import Path

from ser_jax import config as config_module
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.errors import DONE, SAVED, UsageError, UserError
from ser_jax.files import atomic_path, write_json

EXAMPLE = "ser-jax pretrain configs/pretrain/sample_cnn_librispeech.py --workdir runs/gender --set train.steps=2000"


def add_arguments(parser):
    parser.add_argument("config", help="config file, or the config.json of another run")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run; an interrupted run continues here")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides",
                        help="override a field of the config; may be repeated")
    parser.add_argument("--init-from", type=Path, metavar="WORKDIR", help="start from the checkpoint of another run (transfer)")
    parser.add_argument("--freeze-layers", type=int, metavar="N", help="hold the first N layers of the model constant, as the source has them (without one: at random values)")
    parser.add_argument("--above", choices=config_module.ABOVE, help="what the layers above them start from (default: source)")
    parser.add_argument("--stop-after", type=int, default=None, metavar="STEPS", help=argparse.SUPPRESS)


def run(args):
    given = {"init_from": args.init_from, "freeze_layers": args.freeze_layers, "above": args.above}
    overrides = [f"transfer.{name}={value}" for name, value in given.items() if value is not None]
    experiment = config_module.complete(config_module.load(args.config, overrides + args.overrides))
    return train(experiment, args.workdir, stop_after=args.stop_after)


def train(experiment, workdir, *, stop_after=None):
    """Runs an experiment, or continues it where its last checkpoint left it.

    Args:
      experiment: config.Experiment.
      workdir: gets config.json, metrics.jsonl, pretrained_on.parquet and checkpoints/.
      stop_after: take at most this many steps in this call, then save and return SAVED (as after a SIGTERM).

    Returns:
      Exit code: DONE, or SAVED after SIGTERM/SIGINT (run the same command again).

    Raises:
      UserError: a loss or gradient that is not finite, a full disk, another config in the workdir.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from ser_jax import optim, sharding, transfer
    from ser_jax.checkpoint import Checkpoints, full_disk_named
    from ser_jax.data import pipeline, splits
    from ser_jax.evaluate import score_rows
    from ser_jax.network import Network
    from ser_jax.runlog import RunLog

    settings = experiment.train
    for name, least in (("steps", 1), ("batch_size", 1), ("keep", 1), ("patience", 0)):
        if getattr(settings, name) < least:
            raise UsageError(f"train.{name}={getattr(settings, name)}: must be at least {least}")
    lead = jax.process_index() == 0
    workdir = Path(workdir)

    # ---------------------------------------------------------------- data, mesh, network
    corpora = pipeline.open_corpora(experiment.data.corpora)
    network = Network(experiment)
    task = network.task
    table = splits.assign(corpora, experiment.data, task)
    if experiment.follows_scores and not (settings.eval_every and (table["part"] == "dev").any()):
        raise UsageError("optim.plateau and train.patience follow the periodic evaluations, and there are none: set "
                         "train.eval_every and hold speakers out (data.holdout, data.dev_speakers or data.eval_splits)")
    mesh = sharding.mesh()
    sharding.check_batch_size("train.batch_size", settings.batch_size, mesh)
    sharding.use_compilation_cache()
    transform = optim.build(experiment.optim, settings.steps, network.parameters)
    transform = optim.watched(transform) if experiment.follows_scores else transform
    if lead:
        lock = _lock(workdir)  # noqa: F841  (held as long as this call runs)
    source = transfer.provenance(experiment) if _of_lead(not (workdir / "config.json").exists()) else None
    if lead:
        _prepare_workdir(workdir, experiment, corpora, table, task, source)
    _of_lead(True)  # nobody reads the workdir before it is there

    # ---------------------------------------------------------------- state: one tree of arrays, born sharded
    def init():
        params, stats = network.init(settings.seed)
        trained, _ = transfer.split(params, network.frozen)
        return {"params": params, "stats": stats, "opt": transform.init(trained), "step": jnp.zeros((), jnp.int32)}

    abstract = jax.eval_shape(init)
    shardings = jax.tree.map(lambda leaf: sharding.leaf_sharding(mesh, settings.sharding, leaf), abstract)

    def step_fn(state, batch):
        key = jax.random.fold_in(jax.random.key(settings.seed), state["step"])
        trained, constant = transfer.split(state["params"], network.frozen)

        def loss_of(trained):
            return network.loss(transfer.join(trained, constant), state["stats"], batch, key)

        (loss, (metrics, stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(trained)
        update, opt = transform.update(gradient, state["opt"], trained)
        params = transfer.join(optax.apply_updates(trained, update), constant)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(gradient), **metrics}
        return {"params": params, "stats": stats, "opt": opt, "step": state["step"] + 1}, metrics

    step_fn = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, sharding.replicated(mesh)))
    all_finite = jax.jit(lambda state: jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all(),
                         out_shardings=sharding.replicated(mesh))
    observe = jax.jit(lambda opt, score: optim.observe(opt, score, experiment.optim.plateau),
                      out_shardings=shardings["opt"], donate_argnums=0)

    with (full_disk_named(workdir), Checkpoints(workdir, settings.keep, task.eval_metric) as checkpoints,
          _StopRequest() as stop):
        # ------------------------------------------------------------ resume order: 1 checkpoint of the workdir, 2 fresh
        start, saved, told = checkpoints.latest or 0, checkpoints.latest, []
        if saved is not None:
            target = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings)
            state = checkpoints.restore(target)
        else:
            state = jax.jit(init, out_shardings=shardings)()
            told = []
            state |= transfer.begin(experiment, network, state, workdir, corpora, table, told.append)
        # a run stopped where an evaluation was due saved first, to be quick: the evaluation is made up for now
        evaluated = start if checkpoints.scored or not _due(start, settings.eval_every) else start - 1
        log = RunLog(workdir, settings, start, evaluated, lead)
        log.say(f"{experiment.name}: {sum(p.size for p in jax.tree.leaves(state['params'])):,} parameters, "
                f"{(table['part'] == 'train').sum():,} utterances, {mesh.size} {jax.devices()[0].platform} devices, "
                + (f"continues at step {start}" if start else "\n".join([f"{settings.steps} steps", *told])))
        sizes, padded = pipeline.padding(table, experiment.data, settings.batch_size)
        log.say(f"examples of {' '.join(f'{size / SAMPLE_RATE:g}' for size in sizes)} s, {padded:.1%} of them padding (first batches)")
        batches = pipeline.training_batches(corpora, table, task, experiment.data, settings.batch_size, start,
                                            jax.process_count(), jax.process_index())
        dev = table[table["part"] == "dev"]
        step, pending, exhausted = start, None, _exhausted(state, settings)

        # ------------------------------------------------------------ evaluate, save, next batch, step, log: in this order
        while True:
            last = step >= settings.steps or exhausted
            stopping = not last and (stop.requested(step) or (stop_after is not None and step - start >= stop_after))
            scores = None
            if len(dev) and step > evaluated and (last or _due(step, settings.eval_every)) and not stopping:
                log.finish(pending)
                log.check(step, all_finite(state))
                with log.timed("eval"):
                    scores = score_rows(network, state["params"], state["stats"], corpora, dev, mesh, settings.batch_size)
                evaluated = step
                log.write("eval", step, scores)
                if experiment.follows_scores:
                    state["opt"] = observe(state["opt"], scores[task.eval_metric])
                    exhausted = _exhausted(state, settings)
                    last = last or exhausted
            better = scores is not None and scores[task.eval_metric] > checkpoints.best
            wanted = last or stopping or better or _due(step, settings.save_every)
            if scores is not None if step == saved else wanted:  # a saved step is saved again only to add its scores
                log.finish(pending)  # this and the check raise before a state that is not finite could be saved
                log.check(step, all_finite(state))
                with log.timed("save"):
                    checkpoints.save(step, state, scores, overwrite=step == saved)
                saved = step
            if last or stopping:
                log.finish(pending)
                batches.close()
                checkpoints.wait()
                log.say(f"{'done' if last else 'saved'} at step {step}: {workdir}")
                log.close()
                return DONE if last else SAVED
            with log.timed("data"):
                batch = next(batches)
            with log.timed("step"), jax.profiler.StepTraceAnnotation("train", step_num=step):
                log.profile(step)
                batch = sharding.put(batch, mesh)
                with jax.transfer_guard("disallow"):
                    state, metrics = step_fn(state, batch)
                step += 1
                log.finish(pending)  # the metrics of the step before, while this one runs
                pending = (step, metrics)


def _due(step, every):
    return every > 0 and step > 0 and step % every == 0


def _exhausted(state, settings):
    return bool(settings.patience) and int(state["opt"]["since_best"]) >= settings.patience


# What may change between two calls of one run: it does not change the numbers.
FREE = {"data": {"corpora", "workers"},
        "train": {"log_every", "eval_every", "save_every", "keep", "profile", "tensorboard", "sharding"}}


def _of_lead(flag):
    """What the lead process says; all processes call this together (opening a checkpoint takes all of them, too)."""
    import jax
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils
    return bool(multihost_utils.broadcast_one_to_all(flag))


def _lock(workdir):
    """Keeps a second run away from the workdir (a requeued job may start while the old one still saves)."""
    workdir.mkdir(parents=True, exist_ok=True)
    lock = open(workdir / ".lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{workdir}: another pretrain is running here; wait for it or choose another --workdir") from None
    except OSError:  # a file system without locks
        pass
    return lock


def _prepare_workdir(workdir, experiment, corpora, table, task, source):
    """Writes the config and what is trained on; refuses a workdir that belongs to another run.

    `source`: of `transfer.provenance`, for a new workdir.
    """
    value = config_module.to_dict(experiment)
    value["prepared"] = [{"name": c.name, "fingerprint": c.fingerprint, "synthetic": c.info["synthetic"]} for c in corpora]
    value["files"] = getattr(task, "files", {})
    path = workdir / "config.json"
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        old |= config_module.to_dict(config_module.from_dict(old, str(path)))  # fields added since have their defaults
        free = FREE["train"] - ({"eval_every"} if experiment.follows_scores else set())
        changed = ["the content of data.corpora"] if value["prepared"] != old.get("prepared") else []
        changed += [f"the content of {file}" for file, digest in value["files"].items() if old.get("files", {}).get(file) != digest]
        changed += ["name"] if value["name"] != old.get("name") else []
        for part in ("model", "task", "data", "optim", "train", "transfer"):
            now, before = value[part], old.get(part, {})
            changed += [f"{part}.{name}" for name in sorted(now.keys() | before.keys())
                        if name not in {**FREE, "train": free}.get(part, ()) and now.get(name) != before.get(name)]
        if changed:
            raise UsageError(f"{workdir} belongs to another run: {', '.join(changed)} differ; choose another --workdir")
        value["source"] = old.get("source")
    elif (workdir / "checkpoints").exists():
        raise UserError(f"{workdir} has checkpoints but no config.json, so what made them is unknown; choose another --workdir")
    else:
        import pandas
        value["source"], heard = source
        columns = ["corpus", "id", "speaker_id", "gender", "split", "audio_sha256", "text_hash", "part", "refused"]
        with atomic_path(workdir / "pretrained_on.parquet") as temporary:
            pandas.concat([table[columns], *heard]).to_parquet(temporary, index=False)
    write_json(path, value)


class _StopRequest:
    """SIGTERM or Ctrl-C asks the run to save and end; a second signal ends it at once.

    With several processes JAX's own preemption service sees the signal and makes all processes agree on one step.
    """

    def __enter__(self):
        import jax
        self._several = jax.process_count() > 1
        self._asked = False
        self._old = {}
        for number in (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT):
            try:
                self._old[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: the caller's signals are the caller's affair
                break
        return self

    def __exit__(self, *exc):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        self._asked = True
        signal.signal(number, self._old[number])
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)  # which JAX's preemption service watches

    def requested(self, step):
        if self._several:
            from jax.experimental import multihost_utils
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked
