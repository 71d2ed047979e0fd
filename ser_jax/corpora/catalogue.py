"""list the corpora that can be prepared: size, labels, licence, what each needs and how to get it."""

import dataclasses
import json
import shutil
import sys
import textwrap

from ser_jax.errors import DONE, UsageError, suggestion

EXAMPLE = "ser-jax corpora ravdess"


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known about a corpus. `needs` is an extra of this package ("" = the core suffices)."""

    name: str
    what: str
    size: str
    labels: str
    licence: str
    licence_source: str
    needs: str
    get: str
    options: str
    example: str


ENTRIES = (
    Entry(
        "librispeech", "read English audiobooks (Panayotov et al. 2015)",
        "292,367 utterances, 982 h, 2,484 speakers (all seven parts; any subset will do)",
        "text, speaker, gender, chapter as session, official split",
        "CC BY 4.0", "https://www.openslr.org/12",
        "[tfds] only with via=tfds",
        "https://www.openslr.org/12 (mini: /31); give the LibriSpeech folder, one archive or a folder of them",
        "via=tree|tfds  subsets=train-clean-100,dev-clean  scratch=FOLDER",
        "ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech"),
    Entry(
        "tedlium", "English TED talks, releases 1, 2 and 3 (Rousseau et al. 2012, 2014; Hernandez et al. 2018)",
        "118 h, 207 h and 452 h in releases 1, 2 and 3",
        "text, speaker, gender where the release tells it, talk as session, official split",
        "CC BY-NC-ND 3.0", "https://www.openslr.org/51",
        "[tfds,beam] only with via=tfds",
        "https://www.openslr.org/7, /19, /51; give the unpacked folder or the archive",
        "via=tree|tfds  release=1|2|3  gaps=keep|drop  talks=N (N training talks, chosen by the hash of their names)  "
        "scratch=FOLDER",
        "ser-jax prepare tedlium --source /data/TEDLIUM_release2 --out prepared/tedlium"),
    Entry(
        "vctk", "newspaper sentences read in many English accents (Veaux, Yamagishi and MacDonald 2017, 2019)",
        "44,455 utterances of microphone 1 and 43,873 of microphone 2, 44 h, 110 speakers in release 0.92; 109 in 0.80",
        "text (none for p315), speaker, gender; in extra: accent, age, region, microphone; no official split",
        "CC BY 4.0 (release 0.92; 0.80: ODC-By 1.0)", "https://doi.org/10.7488/ds/2645",
        "[tfds] only with via=tfds",
        "https://doi.org/10.7488/ds/2645: VCTK-Corpus-0.92.zip (or 0.80, https://doi.org/10.7488/ds/1994: "
        "VCTK-Corpus.tar.gz); give the unpacked folder or the archive",
        "via=tree|tfds  mic=1|2  scratch=FOLDER",
        "ser-jax prepare vctk --source /data/VCTK-Corpus-0.92 --out prepared/vctk"),
    Entry(
        "timit", "read English sentences with phones marked by hand (Garofolo et al. 1993)",
        "6,300 utterances, 5.4 h, 630 speakers; 5,040 without the sentences SA1 and SA2 that all of them say",
        "phones (61 labels, by sample), text, speaker, gender, dialect region as session, split: train (462 speakers), "
        "dev (50), core-test (24), test (the other 94 of TEST)",
        "LDC user agreement", "https://catalog.ldc.upenn.edu/LDC93S1",
        "",
        "order it at https://catalog.ldc.upenn.edu/LDC93S1; give the folder with TRAIN and TEST; SPHERE as handed out or "
        "RIFF, not compressed by shorten",
        "sa=false|true (keep SA1 and SA2)  scratch=FOLDER",
        "ser-jax prepare timit --source /data/TIMIT --out prepared/timit"),
    Entry(
        "ravdess", "acted emotional speech and song, two English sentences (Livingstone and Russo 2018)",
        "1,440 spoken and 1,012 sung audio-only utterances, 24 actors",
        "emotion (8 classes, 6 in song), gender, speaker, the two sentences as text; in extra: intensity, repetition, "
        "statement, vocal channel",
        "CC BY-NC-SA 4.0", "https://zenodo.org/records/1188976",
        "",
        "https://zenodo.org/records/1188976: Audio_Speech_Actors_01-24.zip, Audio_Song_Actors_01-24.zip; unpack and "
        "do not rename",
        "channel=all|speech|song",
        "ser-jax prepare ravdess --source /data/ravdess --out prepared/ravdess"),
    Entry(
        "iemocap", "acted dialogues, improvised and scripted, of ten English speakers (Busso et al. 2008)",
        "10,039 turns, 12 h, 10 speakers in 5 sessions",
        "emotion (10 classes; empty without majority: 7,532 turns have one), valence, arousal, dominance (means of "
        "1..5; a few outside, kept and named), text, speaker, gender, session; in extra: every evaluator, scenario, "
        "dialog",
        "IEMOCAP data release agreement of USC SAIL (on request)", "https://sail.usc.edu/iemocap/",
        "",
        "ask for it at https://sail.usc.edu/iemocap/; give IEMOCAP_full_release (with Session1 to Session5) or its "
        "archive; 7,532 turns of Table 2 (Tits 2018): probe --where emotion!=; 5,531 turns of four classes: "
        "probe --classes angry,happy+excited,neutral,sad",
        "scratch=FOLDER",
        "ser-jax prepare iemocap --source /data/IEMOCAP_full_release --out prepared/iemocap"),
    Entry(
        "msp_improv", "improvised dialogues of twelve English speakers, in four scenarios (Busso et al. 2017)",
        "8,438 turns, 12 speakers in 6 sessions",
        "emotion (happy, sad, angry, neutral, other; empty without agreement: 7,798 turns have one of the first four), "
        "valence, arousal, dominance (means of 1..5; arousal is 6 - activation, whose 1 is the lively end), speaker, "
        "gender, session, text where transcriptions are there; in extra: scenario (P/R/S/T), naturalness, every evaluator",
        "MSP-IMPROV academic licence of UT Dallas (on request)", "https://lab-msp.com/MSP/MSP-Improv.html",
        "",
        "ask for it at https://lab-msp.com/MSP/MSP-Improv.html; give the folder with Evalution.txt and session1 to "
        "session6; 7,798 turns of four classes: probe --classes angry,happy,neutral,sad",
        "scratch=FOLDER",
        "ser-jax prepare msp_improv --source /data/MSP-IMPROV --out prepared/msp_improv"),
    Entry(
        "emodb", "acted emotional speech, ten German sentences (Burkhardt et al. 2005)",
        "535 utterances, 10 actors",
        "emotion (7 classes), gender, speaker, the ten sentences as text; in extra: sentence, version, age",
        "free for research; no licence text on the corpus' pages", "http://emodb.bilderbar.info/docu/",
        "",
        "http://emodb.bilderbar.info/download/: download.zip; give it or the unpacked folder",
        "scratch=FOLDER",
        "ser-jax prepare emodb --source /data/emodb --out prepared/emodb"),
    Entry(
        "crema_d", "acted emotional speech, twelve English sentences (Cao et al. 2014)",
        "7,442 clips, 91 actors; one has no sound and is refused",
        "emotion as asked for (6 classes), gender, speaker, the sentences as text; in extra: sentence, intensity; "
        "via=tfds: emotion, gender, speaker and the split of TFDS",
        "ODbL 1.0 (contents: DbCL 1.0)", "https://github.com/CheyneyComputerScience/CREMA-D",
        "[tfds] only with via=tfds",
        "clone https://github.com/CheyneyComputerScience/CREMA-D with Git LFS (AudioWAV is enough); give the clone",
        "via=tree|tfds  scratch=FOLDER",
        "ser-jax prepare crema_d --source /data/CREMA-D --out prepared/crema_d"),
    Entry(
        "savee", "acted emotional speech of four English men (Haq and Jackson 2009)",
        "480 utterances, 4 speakers",
        "emotion (7 classes), gender, speaker, no text; in extra: sentence; via=tfds: emotion, gender, speaker and the "
        "split of TFDS",
        "free for research, on registration with the University of Surrey", "http://kahlan.eps.surrey.ac.uk/savee/",
        "[tfds] only with via=tfds",
        "register at http://kahlan.eps.surrey.ac.uk/savee/; give AudioData.zip or the unpacked folder",
        "via=tree|tfds  scratch=FOLDER",
        "ser-jax prepare savee --source /data/AudioData --out prepared/savee"),
    Entry(
        "manifest", "any audio files, described by a CSV, TSV or Parquet table with a column `path`",
        "yours",
        "any of: id, text, speaker_id, gender, emotion, valence, arousal, dominance, session, split, chunk_of, "
        "language, start, end (seconds); other columns are kept in extra",
        "yours (option licence=... notes it)", "you",
        "",
        "write the table; paths are relative to its folder",
        "name=CORPUS  language=en  licence=TEXT",
        "ser-jax prepare manifest --source /data/mycorpus/manifest.csv --out prepared/mycorpus"),
    Entry(
        "espeak", "embedded synthetic corpus: our sentences spoken by eSpeak NG; results are stamped SYNTHETIC",
        "24 speakers with 40 utterances each by default",
        "text, speaker, gender, session, phones, emotion, valence, arousal, dominance, split",
        "own sentences; eSpeak NG is GPL-3.0-or-later",
        "https://github.com/espeak-ng/espeak-ng (a library loaded at run time, not a part of ser_jax)",
        "[demo]",
        "nothing to get: it is made on this machine, without --source",
        "speakers=24  utterances=40  seed=0  language=en|de|en,de  story=1  sentences=acted|matrix",
        "ser-jax prepare espeak --out prepared/espeak"),
)


def add_arguments(parser):
    parser.add_argument("name", nargs="?", help="show everything about this corpus")
    parser.add_argument("--json", action="store_true", help="machine-readable, to stdout")


def run(args):
    entries = [entry for entry in ENTRIES if args.name in (None, entry.name)]
    if not entries:
        names = [entry.name for entry in ENTRIES]
        raise UsageError(f"unknown corpus {args.name!r}{suggestion(args.name, names)}; known: {', '.join(names)}")
    if args.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
    elif args.name is None:
        print(table(entries, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    else:
        print(details(entries[0]))
    return DONE


def table(entries, width=None):
    """Aligned columns; one line per corpus, or wrapped to `width` characters."""
    header = ("CORPUS", "WHAT", "SIZE", "LABELS", "LICENCE", "NEEDS")
    rows = [(entry.name, entry.what, entry.size, entry.labels, entry.licence, entry.needs or "-") for entry in entries]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    if width is not None:
        free = width - widths[0] - 2 * (len(header) - 1)
        shares = (0.26, 0.22, 0.26, 0.14, 0.12)
        widths[1:] = [min(most, max(8, int(free * share))) for most, share in zip(widths[1:], shares, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append("  ".join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip())
    return "\n".join([*lines, "", "`ser-jax corpora NAME` tells how to get one, its options and an example."])


def details(entry):
    rows = (("what", entry.what), ("size", entry.size), ("labels", entry.labels),
            ("licence", f"{entry.licence} (source: {entry.licence_source})"), ("needs", entry.needs or "nothing more"),
            ("how to get", entry.get), ("options", entry.options), ("example", entry.example))
    return "\n".join([entry.name, *(f"  {what:<12}{text}" for what, text in rows)])
