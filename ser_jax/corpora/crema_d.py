"""CREMA-D (Cao et al. 2014, doi:10.1109/TAFFC.2014.2336244), the audio: a clone of the repository, or TFDS.

A file name is actor, sentence, emotion and intensity: `1001_IEO_ANG_HI.wav`. Emotion is what the actor was asked for,
not what the crowd saw or heard. Actors' gender is that of the repository's `VideoDemographics.csv`.
"""

import re

from ser_jax.corpora.by_name import BadName, ByNameOrTfds, code
from ser_jax.corpora.schema import BadAudio
from ser_jax.corpora.tfds_official import OfficialBuilder
from ser_jax.errors import UserError

EMOTIONS = {"ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified",
               "X": "unspecified"}  # 1040_ITH_SAD_X.wav
SENTENCES = {
    "IEO": "It's eleven o'clock", "TIE": "That is exactly what happened", "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about", "TAI": "The airplane is almost full", "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock", "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket", "ITS": "I think I've seen this before", "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes"}
FEMALE = frozenset((
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028, 1029, 1030, 1037,
    1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078,
    1079, 1082, 1084, 1089, 1091))
NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")
SUMMARY = "processedResults/summaryTable.csv"
NOT_IN_CLONE = {"1040_ITH_SAD_XX", "1006_TIE_NEU_XX", "1013_WSI_DIS_XX", "1017_IWW_FEA_XX"}  # known to TFDS, too
GIT_LFS = b"version https://git-lfs.github.com/spec/"


class CremaD(ByNameOrTfds):
    """Reads CREMA-D: 7,442 clips of 48 male and 43 female actors. extra: sentence (its code) and intensity.

    For via="tfds" see `ByNameOrTfds`: the official builder puts 70, 10 and 20 % of the actors into train, validation
    and test, and leaves out `1040_ITH_SAD_X`.

    Args:
      source: a clone of https://github.com/CheyneyComputerScience/CREMA-D (with Git LFS), of which `AudioWAV` is read,
        or any folder of its audio. via="tfds": a TFDS folder, or a clone (`AudioWAV` and `processedResults`).
      via, scratch: see `ByNameOrTfds`.
    """

    name = "crema_d"
    language = "en"
    licence = "ODbL 1.0 (contents: DbCL 1.0)"
    synthetic = False
    EXPECTED = "AudioWAV/1001_DFA_ANG_XX.wav, ..."
    RATE = 16_000
    LABELS = EMOTIONS
    SPEAKERS = {str(number): "female" if number in FEMALE else "male" for number in range(1001, 1092)}

    def official(self):
        return _Clone(self.name, None, self.source, [], self.scratch)

    def describe(self, path):
        match = NAME.fullmatch(path.stem)
        if match is None:
            raise BadName("the name is not actor, sentence, emotion and intensity, as 1001_IEO_ANG_HI")
        actor, sentence, emotion, intensity = match.groups()
        return {"id": path.stem, "text": code(SENTENCES, sentence, "sentence"), "speaker_id": actor,
                "gender": code(self.SPEAKERS, actor, "actor"), "emotion": code(EMOTIONS, emotion, "emotion"),
                "extra": {"sentence": sentence, "intensity": code(INTENSITIES, intensity, "intensity")}}

    def load(self, unit):
        try:
            yield from super().load(unit)
        except BadAudio:
            path = self._root / unit.path
            if path.is_file() and path.read_bytes().startswith(GIT_LFS):
                raise BadAudio("a Git LFS pointer, no audio: run `git lfs pull` in the clone") from None
            raise

    def _files(self):
        """A clone has each clip in `AudioWAV`, for programs, and in `AudioMP3`."""
        files = super()._files()
        return [path for path in files if path.parent.name == "AudioWAV"] or files


class _Clone(OfficialBuilder):
    """The official builder, which fetches each clip on its own, fed with those of a clone."""

    def _archives(self, url_infos, file_name):
        from tensorflow_datasets.audio import crema_d as official

        summary, clips = self.source / SUMMARY, sorted((self.source / "AudioWAV").glob("*.wav"))
        if not summary.exists() or not clips:
            raise UserError(f"{self.source}: no prepared TFDS dataset crema_d and no {SUMMARY} and AudioWAV/*.wav; the "
                            "official builder needs them, via=tree does with AudioWAV")
        table = summary.read_text(encoding="utf-8").splitlines()[1:]
        listed = {line.split(",")[1].strip('"') for line in table if line} - NOT_IN_CLONE
        if missing := sorted(listed - {path.stem for path in clips}):
            raise UserError(f"{self.source}: {len(missing)} clips of {SUMMARY} are not in AudioWAV, e.g. {missing[0]}; "
                            "the official builder needs them all, via=tree does not")
        found = {f"{official.WAV_DATA_URL}{path.name}": path.resolve() for path in clips}
        return {official.SUMMARY_TABLE_URL: summary.resolve(), **found}

    def _register(self, url_infos, found, downloads):
        """Adds the list of checksums, the only file that TFDS itself knows, made from the files at hand."""
        from tensorflow_datasets.core.download import checksums

        known, = url_infos
        infos = {url: checksums.compute_url_info(path) for url, path in found.items()}
        lines = [f"{url}\t{int(info.size)}\t{info.checksum}\t{info.filename}\n" for url, info in infos.items()]
        found[known] = (downloads / "checksums.txt").resolve()
        found[known].write_text("".join(lines), encoding="utf-8")
        return {**url_infos, **infos}
