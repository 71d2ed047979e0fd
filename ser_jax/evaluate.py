"""Score a checkpoint on its own task, one row per test part: `ser-jax evaluate WORKDIR`.

The task says how the scores of pieces become those of an utterance, and what is reported. What the checkpoint was
trained on is never scored, wherever its audio turns up again.
"""

import sys
from pathlib import Path

from ser_jax.errors import DONE, UsageError, UserError, suggestion
from ser_jax.options import read_options

EXAMPLE = "ser-jax evaluate runs/gender --corpus prepared/librispeech --split test-clean,test-other"


def add_arguments(parser):
    parser.add_argument("workdir", type=Path, help="folder of a pretraining run")
    parser.add_argument("--corpus", action="append", type=Path, default=None, metavar="DIR",
                        help="prepared corpus; default: the held-out part of what the run was trained on")
    parser.add_argument("--split", default=None, help="comma list of official partitions; default: each that is there")
    parser.add_argument("--part", choices=("dev", "test"), default=None,
                        help="part of what the run was trained on (without --corpus); default: test, or dev where there is none")
    parser.add_argument("--step", default="best", help="best (default), last, or a number of steps")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                        help="of the task, may be repeated; ctc: beam_width=100, language_model=TEXT.txt|CORPUS; "
                             "phone_states: acoustic_scale=1, insertion_penalty=0 (default: tuned on the dev part)")
    parser.add_argument("--labels", type=Path, default=None, metavar="FILE.parquet",
                        help="frame labels to score against (of tasks on frames; default: those it was trained on)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=None, help="folder of results.jsonl; default: the workdir")


def run(args):
    import jax

    from ser_jax import results, sharding
    from ser_jax.checkpoint import Trained
    from ser_jax.data import pipeline

    if args.batch_size < 1:
        raise UsageError(f"--batch-size {args.batch_size}: must be at least 1")
    sharding.use_compilation_cache()
    trained = Trained(args.workdir, args.step)
    task = trained.network.task
    options = read_options(args.option, task.options, "none, its task has no options")
    if args.part and (args.corpus or args.split):
        raise UsageError("--part is a part of what the run was trained on; give it without --corpus and --split")
    corpora = pipeline.open_corpora(args.corpus or trained.experiment.data.corpora)
    if set(getattr(task, "tuned", ())) - set(options):
        options |= _tuned(trained, args.batch_size, options)
    if args.labels:
        if not hasattr(task, "score_against"):
            raise UsageError(f"--labels {args.labels}: {trained.experiment.name} does not label frames")
        task.score_against(str(args.labels))
    splits = _known_splits(args.split, corpora) if args.split else None
    rows = []
    for position, corpus in enumerate(corpora):
        for part, table, stamps, notes in _parts(trained, corpus, position, splits,
                                                 args.part or args.corpus is None):
            if len(table):
                rows += score_part(trained, corpora, part, table, args.batch_size, stamps, notes, options)
            else:
                print(f"{corpus.path}: nothing to score in {part} ({'; '.join(notes)})", file=sys.stderr)
    if not rows:
        hint = "see the lines above" if args.corpus else "train with data.test > 0 or name a --corpus"
        raise UserError(f"{args.workdir}: no held-out utterance to score; {hint}")
    if jax.process_index() == 0:
        out = args.out or args.workdir
        for row in rows:
            results.append_row(out / "results.jsonl", row)
        results.print_rows(rows)
        for row in rows:
            beside = ", ".join(f"{name} {results.format_value(row['metric'], value)}"
                               for name, value in (row.get("secondary") or {}).items())
            for line in ([f"beside {row['metric']}: {beside}"] if beside else []) + row["notes"]:
                print(f"{row['corpus']['name']}, {row['split']}: {line}", file=sys.stderr)
    return DONE


def _tuned(trained, batch_size, given):
    """Options that the task finds on the dev part of the run's own corpora, beside the given ones; {} where there is none."""
    import numpy as np
    import pandas

    from ser_jax.data import pipeline

    used = trained.utterances
    try:
        corpora = pipeline.open_corpora(trained.experiment.data.corpora)
    except UserError as error:
        print(f"not tuned, its defaults are taken: {error}", file=sys.stderr)
        return {}
    watched = set(used.loc[used["part"] == "dev", "audio_sha256"])
    tables = []
    for position, corpus in enumerate(corpora):
        table = corpus.index.assign(position=position, row=np.arange(len(corpus)))
        tables.append(table[table["audio_sha256"].isin(watched) & (trained.network.task.refuse(table) == "")])
    dev = pandas.concat(tables, ignore_index=True)
    if dev.empty:
        print("no dev part to tune the decoder on: its defaults are taken", file=sys.stderr)
        return {}
    return trained.network.task.tune(_predict(trained, corpora, dev, batch_size), dev, trained, **given)


def _known_splits(text, corpora):
    splits = [name.strip() for name in text.split(",")]
    known = set().union(*(corpus.index["split"] for corpus in corpora))
    for name in splits:
        if name not in known:
            raise UsageError(f"--split {name}: no utterance of {', '.join(str(corpus.path) for corpus in corpora)} is in it"
                             f"{suggestion(name, known)}; there are {sorted(known)}")
    return splits


def _parts(trained, corpus, position, splits, own):
    """(name, table, stamps, notes) of each part of a corpus: never what the checkpoint was trained on.

    `own`: the held-out speakers of the run itself are asked for; "dev" or "test", or True for test where there is one. Audio is recognised by its hash: it may be in several corpora, or twice in one. The notes say what is left out.
    """
    import numpy as np
    import pandas

    from ser_jax.data.splits import text_hash

    index = corpus.index
    used = trained.utterances
    seen = {part: index["audio_sha256"].isin(used.loc[used["part"] == part, "audio_sha256"]) for part in set(used["part"])}
    never = pandas.Series(False, index.index)
    table = pandas.DataFrame({
        "position": position, "row": np.arange(len(index)), "id": index["id"], "speaker_id": index["speaker_id"],
        "split": index["split"], "text_hash": index["text"].map(text_hash), "num_samples": index["num_samples"],
        "audio_sha256": index["audio_sha256"],
        "left_out": np.where(seen.get("train", never), "trained on", trained.network.task.refuse(index))})
    if splits is not None:
        parts = [(name, table["split"] == name) for name in splits]
    elif own:
        part = own if own is not True else "test" if seen.get("test", never).any() else "dev"
        parts = [(f"held-out {part} speakers", seen.get(part, never))]
    else:
        parts = [(name or "all", table["split"] == name) for name in sorted(set(table["split"]))]
    found = []
    for name, chosen in parts:
        group = table[chosen]
        reasons = group.loc[group["left_out"] != "", "left_out"].value_counts()
        notes = [f"{count} of {len(group)} utterances left out: {reason}" for reason, count in reasons.items()]
        kept = group[group["left_out"] == ""]
        if len(group):
            stamps, more = _known_already(used, corpus, kept)
            found.append((name, kept, stamps, notes + more))
    return found


def _known_already(used, corpus, table):
    """(stamps, notes) on what training knew of a part, though not its utterances."""
    speakers = set(table["speaker_id"]) - {""}
    heard = set(used.loc[(used["part"] == "train") & (used["corpus"] == corpus.name), "speaker_id"])
    carried = int(table["audio_sha256"].isin(used.loc[used["part"] == "source", "audio_sha256"]).sum())
    watched = int(table["audio_sha256"].isin(used.loc[used["part"] == "dev", "audio_sha256"]).sum())
    stamps, notes = [], []
    texts = (set(table["text_hash"]) - {""}) & set(used.loc[used["part"] == "train"].get("text_hash", ()))
    if speakers & heard:
        stamps.append("LEAKY")
        notes.append(f"{len(speakers & heard)} of {len(speakers)} speakers were trained on, in other utterances")
    if texts:
        stamps.append("TEXT-SHARED")
        share = int(table["text_hash"].isin(texts).sum())
        notes.append(f"{len(texts)} sentences, of {share} utterances, were trained on, said by others or at another time")
    if "text_hash" not in used:
        notes.append("which sentences were trained on is unknown: the run is older than that column")
    if carried:
        stamps.append("TRANSDUCTIVE")
        notes.append(f"the run that this one started from has heard {carried} of the utterances")
    if watched:
        notes.append(f"the periodic evaluation, which chooses the best checkpoint, has seen {watched} of the utterances")
    return stamps, notes


def score_part(trained, corpora, part, table, batch_size, stamps=(), notes=(), options=None):
    """Result rows of one part, as the task defines them; `options` are those of the task."""
    from ser_jax import results

    corpus = corpora[table["position"].iloc[0]]
    scores = _predict(trained, corpora, table, batch_size)
    stamps = [*stamps, *(["SYNTHETIC"] if corpus.info["synthetic"] or trained.synthetic else [])]
    rows = []
    for fields in trained.network.task.rows(scores, corpus.index.iloc[table["row"]], trained, **(options or {})):
        unit = fields.pop("unit")
        rows.append(results.result_row(
            "evaluate", fields.pop("metric"), fields.pop("value"), fields.pop("n"), **fields, split=f"{part}, per {unit}",
            system=trained.experiment.name, experiment=trained.experiment.name,
            corpus={"name": corpus.name, "fingerprint": corpus.fingerprint},
            checkpoint={"hash": trained.hash, "step": trained.step}, stamps=stamps, notes=list(notes)))
    return rows


def _predict(trained, corpora, table, batch_size):
    """`predict` with the parameters of a checkpoint on all devices."""
    import jax

    from ser_jax import sharding

    mesh = sharding.mesh()
    params, stats = jax.device_put((trained.params, trained.stats), sharding.replicated(mesh))
    return predict(trained.network, params, stats, corpora, table, mesh, batch_size)


def score_rows(network, params, stats, corpora, table, mesh, batch_size):
    """Periodic evaluation: the task's summary over the rows of a table of `splits.assign`."""
    import pandas

    scores = predict(network, params, stats, corpora, table, mesh, batch_size)
    index = pandas.concat([corpora[p].index.iloc[[r]] for p, r in zip(table["position"], table["row"], strict=True)])
    return network.task.summary(scores, index)


_compiled = {}  # (network, mesh) -> jitted scores: periodic evaluations must not compile again


def predict(network, params, stats, corpora, table, mesh, batch_size):
    """The task's scores of utterances, combined over their pieces.

    Args:
      table: rows with `position`, `row`, `num_samples`; every one long enough for a piece.
      mesh: all devices that take part; with several processes each of them calls this with the same table.

    Returns:
      list with one score per row of the table.
    """
    import jax

    from ser_jax import sharding
    from ser_jax.data import batches

    task = network.task
    if (id(network), mesh) not in _compiled:
        _compiled.clear()
        _compiled[id(network), mesh] = jax.jit(lambda params, stats, batch: task.scores(network.apply(params, stats, batch)),
                                               out_shardings=sharding.replicated(mesh))
    scores_of = _compiled[id(network), mesh]
    batch_size = -(-batch_size // mesh.size) * mesh.size
    hosts, host = _hosts(mesh)
    position, row = table["position"].to_numpy(), table["row"].to_numpy()
    seconds = task.evaluation_seconds
    pieces, _ = batches.pieces_of(table["num_samples"], task, seconds)
    groups = batches.batched(pieces, batch_size, seconds)
    share = batch_size // hosts

    def make(group):
        length, members = group
        return batches.load(lambda i: corpora[position[i]].speech(int(row[i])), length,
                            members[host * share:(host + 1) * share], share)

    found = [{} for _ in range(len(table))]
    for (_, members), batch in zip(groups, batches.ahead(make, groups), strict=True):
        scores = jax.device_get(scores_of(params, stats, sharding.put(batch, mesh)))
        for i, piece in enumerate(members):  # the last batch has empty rows
            found[piece.row][piece.number] = jax.tree.map(lambda leaf, i=i: leaf[i], scores)
    return [task.combine([pieces[number] for number in sorted(pieces)]) for pieces in found]


def _hosts(mesh):
    """(number of processes in the mesh, position of this one)."""
    import jax
    processes = sorted({device.process_index for device in mesh.devices.flat})
    return len(processes), processes.index(jax.process_index())
