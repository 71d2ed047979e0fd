"""Where frame labels come from: phones in the records, a CTM file, voice activity, forced alignment by a net.

Each source adds the rows of the corpora to a `Found` and returns the metadata of `write_frame_labels`.
"""

import collections
import sys
from pathlib import Path

import jax
import numpy as np
import pandas

from ser_jax import evaluate, sharding
from ser_jax.audio import voicing, waveform
from ser_jax.audio.logmel import FAYEK2016 as FRAMES
from ser_jax.checkpoint import Trained
from ser_jax.corpora.phones import MODELLED, STATES, TRANSCRIBED
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.data import batches
from ser_jax.data.segments import modelled, read_ctm, thirds
from ser_jax.errors import UsageError, UserError
from ser_jax.progress import Progress
from ser_jax.tasks import hybrid
from ser_jax.tasks.phone_states import PhoneStatesTask

NAMED = 5  # so many utterances are named of each reason
SAMPLES_AT_ONCE = 2**24  # in a batch whose voice is looked for: 100 MB of correlations
AT_ONCE = 256  # utterances that a net aligns before the next ones: their scores are kept in memory
TOO_SHORT = f"shorter than a frame ({FRAMES.window} samples)"


class Found:
    """The rows that were found, and why an utterance has none.

    Attributes:
      rows: (id, int16[F], transcript) of each utterance, as `write_frame_labels` takes them.
      absent: {reason: ids}.
    """

    def __init__(self):
        self.rows, self.absent = [], collections.defaultdict(list)

    def add(self, name, labels, transcript=()):
        if len(labels):
            self.rows.append((name, labels, transcript))
        else:
            self.absent[TOO_SHORT].append(name)

    def tell(self):
        """Names the utterances without labels on stderr, one line per reason."""
        for reason, names in self.absent.items():
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            print(f"ser-jax align: {', '.join(sorted(names)[:NAMED])}{more}: {reason}", file=sys.stderr)

    def summary(self, meta, out):
        """The lines that the verb ends with."""
        labels = np.concatenate([labels for _, labels, _ in self.rows])
        labelled = labels[labels >= 0]
        absent = sum(map(len, self.absent.values()))
        if meta["kind"] == "voice activity":
            share = f"{(labels == 1).mean():.1%} with voice"
        else:
            silent = [i for i, name in enumerate(meta["phones"]) if name == "sil"]
            share = (f"{len(labelled) / len(labels):.1%} labelled, "
                     f"{np.isin(labelled // STATES, silent).mean():.1%} of them silence, "
                     f"{len(np.unique(labelled))} of {len(meta['classes'])} states occur")
        hours = len(labels) * FRAMES.hop / SAMPLE_RATE / 3600
        return "\n".join([f"labels       {meta['kind']}, by {meta['source']['from']}",
                          f"utterances   {len(self.rows)} of {len(self.rows) + absent}",
                          *(f"  {len(names):9d}  {reason}" for reason, names in self.absent.items()),
                          f"frames       {len(labels)} ({hours:.2f} h), {share}",
                          f"path         {out}"])


def _meta(kind, classes, source, corpora):
    return {"kind": kind, "classes": list(classes), "window": FRAMES.window, "hop": FRAMES.hop, "source": source,
            "corpora": [{"name": corpus.name, "fingerprint": corpus.fingerprint, "synthetic": corpus.info["synthetic"]}
                        for corpus in corpora]}


def _phone_meta(phones, phone_set, source, corpora):
    classes = [f"{name}_{third}" for name in phones for third in range(1, STATES + 1)]
    return _meta("phone states", classes, source, corpora) | {"phones": list(phones), "phone_set": phone_set}


def _cut(segments_of, phones, corpora, found):
    """Adds the thirds of {id: segments} to `found`, in the order of the corpora."""
    numbers = {name: i for i, name in enumerate(phones)}
    for corpus in corpora:
        for name, size in zip(corpus.index["id"], corpus.index["num_samples"], strict=True):
            if name in segments_of:
                segments = segments_of[name]
                found.add(name, thirds(segments, numbers, FRAMES.num_frames(int(size))), [part[0] for part in segments])


def from_phones(corpora, found):
    """Thirds of the phones in the records; adds to `found` and returns the metadata."""
    of_timit = {corpus.name == "timit" for corpus in corpora}
    if len(of_timit) > 1:
        raise UsageError("timit and other corpora have other phones; align them into files of their own")
    segments_of = {}
    with Progress(sum(map(len, corpora)), "align") as progress:
        for corpus in corpora:
            for row in range(len(corpus)):
                record = corpus.record(row)
                if record.phones:
                    segments_of[record.id] = modelled(record.phones) if True in of_timit else record.phones
                else:
                    found.absent["no phones in the record"].append(record.id)
                progress.update()
    used = {label for segments in segments_of.values() for label, _, _ in segments}
    phones = MODELLED if True in of_timit else sorted(used)
    _cut(segments_of, phones, corpora, found)
    return _phone_meta(phones, "timit" if True in of_timit else "own", {"from": "phones"}, corpora)


def from_voice(corpora, batch_size, found):
    """Voice activity; adds to `found` and returns the metadata."""
    @jax.jit
    def voiced(speech, length):
        mask = waveform.length_mask(length, speech.shape[1])
        return voicing.voice_activity(waveform.to_float(speech), mask)[0]

    with Progress(sum(map(len, corpora)), "align") as progress:
        for corpus in corpora:
            sizes, names = corpus.index["num_samples"].to_numpy(), corpus.index["id"].to_numpy(object)
            pieces = [batches.Piece(row, 0, 0, int(size)) for row, size in enumerate(sizes)]
            groups = []
            for length, members in batches.batched(pieces, batch_size, None):
                rows = max(1, min(batch_size, SAMPLES_AT_ONCE // length))
                groups += [(length, members[i:i + rows], rows) for i in range(0, len(members), rows)]

            def make(group, corpus=corpus):
                return group[1], batches.load(corpus.speech, *group)

            for members, batch in batches.ahead(make, groups):
                labels = np.asarray(voiced(batch["speech"], batch["length"]))
                for i, piece in enumerate(members):
                    found.add(names[piece.row], labels[i, :FRAMES.num_frames(piece.length)].astype(np.int16))
                progress.update(len(members))
    source = {"from": "voice", "below_loudest_db": voicing.BELOW_LOUDEST_DB, "correlation": voicing.LEAST_CORRELATION,
              "low_hz": voicing.LOWEST_HZ, "high_hz": voicing.HIGHEST_HZ}
    return _meta("voice activity", ["silence", "voice"], source, corpora)


def from_ctm(corpora, path, found):
    """Thirds of the phones of a Kaldi CTM file; adds to `found` and returns the metadata.

    Phones of TIMIT alone that are all among its 48 or its 61 labels are taken as such; others are a set of their own.
    """
    segments_of = read_ctm(path)
    used = {label for segments in segments_of.values() for label, _, _ in segments}
    of_timit = all(corpus.name == "timit" for corpus in corpora)
    phones, phone_set = sorted(used), "own"
    if of_timit and used <= set(MODELLED):
        phones, phone_set = MODELLED, "timit"
    elif of_timit and used <= set(TRANSCRIBED):
        phones, phone_set = MODELLED, "timit"
        segments_of = {name: modelled(segments) for name, segments in segments_of.items()}
    names = [name for corpus in corpora for name in corpus.index["id"]]
    absent, strangers = [name for name in names if name not in segments_of], sorted(segments_of.keys() - set(names))
    if absent:
        found.absent[f"not in {path}"] = absent
    if strangers:
        print(f"ser-jax align: {len(strangers)} utterances of {path} are in none of the corpora, e.g. {strangers[0]}",
              file=sys.stderr)
    _cut(segments_of, phones, corpora, found)
    return _phone_meta(phones, phone_set, {"from": "ctm", "file": str(path)}, corpora)


def from_net(corpora, workdir, step, transcripts, batch_size, found):
    """Forced alignment by a trained net of task phone_states; adds to `found` and returns the metadata.

    Its posteriors are divided by the priors of the states, counted over the utterances it was trained on (where
    the file of the transcripts has none of them: over all of that file).
    """
    trained = Trained(workdir, step)
    task = trained.network.task
    if not isinstance(task, PhoneStatesTask):
        raise UsageError(f"--from {workdir}: {trained.experiment.name} was not trained on phone states; "
                         "name a run whose task is phone_states")
    known = _transcripts(task, transcripts)
    heard = set(trained.utterances.loc[trained.utterances["part"] == "train", "id"]) & set(known.ids)
    log_priors = hybrid.priors([known.labels(name) for name in sorted(heard or known.ids)], len(known.classes))
    table = pandas.concat([pandas.DataFrame({
        "position": position, "row": np.arange(len(corpus)), "id": corpus.index["id"],
        "num_samples": corpus.index["num_samples"]}) for position, corpus in enumerate(corpora)], ignore_index=True)
    has_transcript, short = table["id"].isin(known.ids), table["num_samples"] < task.min_samples
    for reason, chosen in ((f"no transcript in {transcripts or ', '.join(task.config.labels)}", ~has_transcript),
                           (TOO_SHORT, has_transcript & short)):
        if chosen.any():
            found.absent[reason] = table.loc[chosen, "id"].tolist()
    table = table[has_transcript & ~short].sort_values("num_samples", kind="stable")
    mesh = sharding.mesh()
    weights = jax.device_put((trained.params, trained.stats), sharding.replicated(mesh))
    with Progress(len(table), "align") as progress:
        for first in range(0, len(table), AT_ONCE):
            part = table.iloc[first:first + AT_ONCE]
            scores = evaluate.predict(trained.network, *weights, corpora, part, mesh, batch_size)
            spoken = [known.transcript(name) for name in part["id"]]
            states = hybrid.realign([score["log_posteriors"] for score in scores], spoken, log_priors, known.phones)
            for name, labels, words in zip(part["id"], states, spoken, strict=True):
                if labels is None:
                    found.absent["fewer frames than its phones have states"].append(name)
                else:
                    found.add(name, labels, words)
            progress.update(len(part))
    source = {"from": "net", "experiment": trained.experiment.name, "checkpoint": trained.hash, "step": trained.step,
              "synthetic": trained.synthetic}
    return _phone_meta(known.phones, known.phone_set, source, corpora)


def _transcripts(task, path):
    """FrameLabels with the transcripts to align: `path`, or what the task was trained on."""
    if path is not None:
        return task.open_labels([path])
    missing = [name for name in task.config.labels if not Path(name).is_file()]
    if missing:
        raise UserError(f"{missing[0]}, the frame labels that the net was trained on, is not there; name a file "
                        "of the same phones by --transcripts")
    return task.file
