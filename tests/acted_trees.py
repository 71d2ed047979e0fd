"""Miniatures of corpora whose labels are in the names of the files, in their official layouts."""

import pickle
from pathlib import Path

from corpus_files import FEMALE_F0, MALE_F0, voice, write_audio

from ser_jax.corpora import crema_d, emodb, savee
from ser_jax.corpora.schema import Reject


def write_emodb(root):
    """`wav/` with every emotion of every speaker, each a sentence and a version, and what else is in the archive."""
    for i, (speaker, (gender, _)) in enumerate(emodb.SPEAKERS.items()):
        for j, emotion in enumerate(emodb.EMOTIONS):
            name = f"{speaker}{sorted(emodb.SENTENCES)[(i + j) % 10]}{emotion}{'abcdef'[(i + j) % 6]}"
            _write(Path(root, "wav", f"{name}.wav"), gender, 10 * i + j)
    Path(root, "erkennung.txt").write_text("Satz\terkannt\n")
    Path(root, "silb").mkdir()
    Path(root, "silb", "03a01Wa.silb").write_text("0.1 Der\n")
    return Path(root)


def write_crema_d(root, actors=(1001, 1002, 1005, 1091)):
    """A clone of the repository: `AudioWAV`, the same clips in `AudioMP3`, and the table of votes."""
    names = []
    for i, actor in enumerate(actors):
        for j, emotion in enumerate(crema_d.EMOTIONS):
            sentence, intensity = sorted(crema_d.SENTENCES)[(i + j) % 12], ("LO", "MD", "HI", "XX")[(i + j) % 4]
            names.append(f"{actor}_{sentence}_{emotion}_{intensity}")
            gender = "female" if actor in crema_d.FEMALE else "male"
            path = _write(Path(root, "AudioWAV", f"{names[-1]}.wav"), gender, 10 * i + j)
            copy = Path(root, "AudioMP3", f"{names[-1]}.mp3")
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    table = ['"","FileName","VoiceVote"', *(f'"{i}","{name}","N"' for i, name in enumerate(names, 1)),
             '"0","1040_ITH_SAD_XX","S"']  # listed, and not there under this name
    Path(root, "processedResults").mkdir()
    Path(root, "processedResults", "summaryTable.csv").write_text("\n".join(table) + "\n")
    return Path(root)


def write_savee(root, numbers=(1, 15)):
    """`AudioData/` with the sentences `numbers` of each emotion, 44.1 kHz."""
    for i, speaker in enumerate(savee.Savee.SPEAKERS):
        for j, emotion in enumerate(savee.EMOTIONS):
            for number in numbers:
                path = Path(root, "AudioData", speaker, f"{emotion}{number:02d}.wav")
                _write(path, "male", 100 * i + 10 * j + number, rate=44_100)
    Path(root, "AudioData", "Info.txt").write_text("Speakers\n")
    return Path(root, "AudioData")


def _write(path, gender, seed, rate=16_000):
    return write_audio(path, voice(FEMALE_F0 if gender == "female" else MALE_F0, 0.15, seed, rate), rate)


def load_all(corpus):
    """({id: utterance}, {id: reason of the reject}); the reader is pickled on the way, as for a worker process."""
    units = corpus.units()
    loaded = [one for unit in units for one in pickle.loads(pickle.dumps(corpus)).load(unit)]
    assert len(loaded) == sum(unit.count for unit in units) == len({one.id for one in loaded})
    rejects = {one.id: one.reason for one in loaded if isinstance(one, Reject)}
    return {one.id: one for one in loaded if one.id not in rejects}, rejects


def heard(utterances):
    """What TFDS and the files must agree on: {sound: (speaker, gender, emotion)}."""
    return {one.speech.tobytes(): (one.speaker_id, one.gender, one.emotion) for one in utterances.values()}


def assert_split_by_speaker(utterances, speakers):
    """speakers: {split: how many}."""
    told = {split: {one.speaker_id for one in utterances.values() if one.split == split} for split in speakers}
    assert {split: len(found) for split, found in told.items()} == speakers
    assert sum(map(len, told.values())) == len(set().union(*told.values())) == len({
        one.speaker_id for one in utterances.values()})
