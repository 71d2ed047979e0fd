"""The official TFDS builders as a source: a dataset prepared by TFDS before, or the builder run on the archives.

The only module that needs TensorFlow (and, for TED-LIUM, Apache Beam): both are imported when a reader asks for them.
The builders decode audio with pydub and ffmpeg; while one runs here, a stand-in decodes with libsndfile instead.
"""

import contextlib
import functools
import importlib.util
import io
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import soundfile

from ser_jax.corpora import archives
from ser_jax.corpora.schema import BadAudio, Unit
from ser_jax.errors import UserError
from ser_jax.files import read_json


class OfficialBuilder:
    """Units and examples of one official builder.

    Args:
      name: TFDS name, e.g. "librispeech".
      config: TFDS config to look for, e.g. "release2"; None: any.
      source: a TFDS data folder, the folder of one prepared version, or a folder with the original archives (under
        their own names, or as TFDS names them in its download folder).
      urls: the official urls, whose last parts are the names of the archives.
      scratch: the builder writes here; None: `unpacked/` beside the archives. Its copies of the archives' content are
        removed when it is done; the TFDS dataset stays, for a restart, until the user deletes it.
      build_config: TFDS config to build when none is found.
      by_hand: names of files in the source that TFDS leaves to the user to fetch (its `manual_dir`).
    """

    def __init__(self, name, config, source, urls, scratch=None, build_config=None, by_hand=()):
        self.name, self.config, self.build_config, self.urls, self.scratch = name, config, build_config, urls, scratch
        self.by_hand = by_hand
        self.source = Path(source).parent if Path(source).is_file() else Path(source)

    def units(self, splits):
        """One unit per shard of the named splits, with the key `<split>#<shard>`.

        Raises:
          UserError: TensorFlow is missing, or the source holds neither dataset nor archives.
        """
        info = _open(self.directory).info
        units = []
        for split in splits:
            if split not in info.splits:
                raise UserError(f"{self.directory}: no split {split!r}; there is {', '.join(info.splits)}")
            files = sorted(info.splits[split].filepaths)
            for shard, (path, count) in enumerate(zip(files, info.splits[split].shard_lengths, strict=True)):
                if count:
                    units.append(Unit(f"{split}#{shard}", Path(path).name, count, archives.size_and_time(path)))
        return units

    def examples(self, unit):
        """Examples of one shard as dicts of numpy values (text is bytes)."""
        import tensorflow_datasets as tfds

        split, shard = unit.key.split("#")
        builder = _open(self.directory)
        part = tfds.core.ReadInstruction(split, from_=int(shard), to=int(shard) + 1, unit="shard")
        if builder.info.file_format in tfds.core.FileFormat.with_random_access():
            return iter(builder.as_data_source(split=part))  # as_dataset does not read these
        return iter(tfds.as_numpy(builder.as_dataset(split=part, shuffle_files=False)))

    def metadata(self):
        """`info.metadata` of the builder. Keys are strings (a builder that has just run has some of other types)."""
        return _open(self.directory).info.metadata

    def class_names(self, feature):
        """Names of a ClassLabel feature, in the order of their numbers."""
        return _open(self.directory).info.features[feature].names

    @functools.cached_property
    def directory(self):
        """Folder of the prepared TFDS dataset. Found, or built from the archives."""
        found = self._prepared(self.source)
        if not found:
            found = [self._build()]
        if len(found) > 1:
            raise UserError(f"{self.source}: several prepared {self.name} datasets; name one of "
                            f"{', '.join(str(path.relative_to(self.source)) for path in found)} as --source")
        return str(found[0])

    def _prepared(self, folder):
        depths = ("", "*/", "*/*/", "*/*/*/")
        files = [path for depth in depths for path in sorted(folder.glob(f"{depth}dataset_info.json"))]
        found = []
        for path in files:
            info = read_json(path)
            if path.parent.name.startswith("incomplete."):
                continue
            if info.get("name") == self.name and self.config in (None, info.get("configName")):
                if info.get("configName") == "lazy_decode":
                    raise UserError(f"{path.parent}: the lazy_decode config is not supported; use the default one")
                found.append(path.parent)
        return found

    def _archives(self, url_infos, file_name):
        """{url: archive}, under its own name or under the name that TFDS gives it in a download folder."""
        found = {}
        for url in self.urls:
            cached = file_name(url, url_infos[url].checksum)
            names = (url.rsplit("/", 1)[1], cached, f"{self.name}/{cached}", f"downloads/{self.name}/{cached}")
            path = next((self.source / name for name in names if (self.source / name).exists()), None)
            if path is None:
                raise UserError(f"{self.source}: no prepared TFDS dataset {self.name} and no {names[0]}; the official "
                                f"builder needs it ({url}), via=tree does with fewer archives")
            found[url] = path.resolve()
        return found

    def _fetched_by_hand(self):
        missing = [name for name in self.by_hand if not (self.source / name).exists()]
        if missing:
            raise UserError(f"{self.source}: no prepared TFDS dataset {self.name} and no {missing[0]}; the official "
                            "builder needs it, via=tree does without")
        return [(self.source / name).resolve() for name in self.by_hand]

    def _register(self, url_infos, found, downloads):
        """`url_infos` of all `found` {url: path}, to which it may add. Here, TFDS knows them all."""
        return url_infos

    def _build(self):
        tfds = _tfds()
        if issubclass(tfds.builder_cls(self.name), tfds.core.BeamBasedBuilder):
            _need("apache_beam", "beam", f"the official TFDS builder of {self.name}")
        from tensorflow_datasets.core.download import resource

        build = functools.partial(tfds.builder, self.name, config=self.build_config)
        url_infos = build(data_dir=self.source / "absent").url_infos
        found, by_hand = self._archives(url_infos, resource.get_dl_fname), self._fetched_by_hand()
        for url, path in found.items():
            if url in url_infos and path.stat().st_size != url_infos[url].size:
                print(f"{path}: {path.stat().st_size} bytes, the official archive has {url_infos[url].size}; "
                      "taken as it is", file=sys.stderr)
        stamp = archives.stamp([*found.values(), *by_hand])
        folder = archives.scratch_for(self.source, self.scratch) / f"tfds-{self.name}-{stamp}"
        if done := self._prepared(folder):
            return done[0]
        downloads = folder / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        (downloads / "manual").mkdir(parents=True)  # where TFDS looks for what is fetched by hand
        for path in by_hand:
            (downloads / "manual" / path.name).symlink_to(path)
        url_infos = self._register(url_infos, found, downloads)
        for url, path in found.items():
            # TFDS trusts a file in its download folder that carries the registered checksum in its name.
            link = downloads / self.name / resource.get_dl_fname(url, url_infos[url].checksum)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
            resource.write_info_file(url=url, path=_epath(link), dataset_name=self.name,
                                     original_fname=url.rsplit("/", 1)[1], url_info=url_infos[url])
        print(f"{self.name}: the official TFDS builder runs in {folder}", file=sys.stderr)
        builder = build(data_dir=folder)
        with soundfile_as_pydub():
            builder.download_and_prepare(download_dir=str(downloads), download_config=_download_config(tfds, builder))
        shutil.rmtree(downloads)
        return builder.data_dir


def to_int16(speech):
    """int16[T] of the integers of an official builder (TED-LIUM's are int64). Raises BadAudio outside of 16 bits."""
    narrow = speech.astype(np.int16)
    if not np.array_equal(narrow, speech):
        raise BadAudio("samples outside of 16 bits")
    return narrow


@contextlib.contextmanager
def soundfile_as_pydub():
    """Lets `import pydub` give a stand-in that decodes with libsndfile, for the time of the block.

    It has what the official builders use: `AudioSegment.from_file`, `channels`, slices in milliseconds and
    `get_array_of_samples`. The file last read stays decoded: the TED-LIUM builder opens a talk once per segment.
    """
    module = types.ModuleType("pydub")
    module.AudioSegment = _Segment
    saved = sys.modules.get("pydub")
    sys.modules["pydub"] = module
    try:
        yield
    finally:
        _Segment.last = (None, None)
        if saved is None:
            del sys.modules["pydub"]
        else:
            sys.modules["pydub"] = saved


class _Segment:
    """The part of `pydub.AudioSegment` (0.25.1) that TFDS uses. samples: int16[T, channels]."""

    last = (None, None)

    def __init__(self, samples, rate):
        self.samples, self.rate = samples, rate

    @classmethod
    def from_file(cls, file, format=None):
        name, segment = cls.last
        if segment is None or name != file.name:
            segment = cls(*soundfile.read(io.BytesIO(file.read()), dtype="int16", always_2d=True))
            cls.last = (file.name, segment)
        return segment

    @property
    def channels(self):
        return self.samples.shape[1]

    def __len__(self):
        return round(1000 * (len(self.samples) / self.rate))

    def __getitem__(self, milliseconds):
        edges = min(milliseconds.start, len(self)), min(milliseconds.stop, len(self))
        start, stop = (int(edge * (self.rate / 1000)) for edge in edges)
        samples = self.samples[start:stop]
        # pydub counts in whole milliseconds and fills what a file lacks of its last one with silence.
        return _Segment(np.pad(samples, ((0, max(0, stop - start - len(samples))), (0, 0))), self.rate)

    def get_array_of_samples(self):
        return self.samples.reshape(-1)


def _need(module, extra, what):
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{what} needs {module}: pip install 'ser_jax[{extra}]'")


@functools.cache
def _tfds():
    """tensorflow_datasets, with TensorFlow loaded and kept off the accelerators (they are JAX's)."""
    for name, value in (("TF_CPP_MIN_LOG_LEVEL", "2"), ("TF_ENABLE_ONEDNN_OPTS", "0")):  # both only for their log lines
        os.environ.setdefault(name, value)
    try:
        import tensorflow
    except ImportError as error:
        raise UserError("the official TFDS builders need TensorFlow: pip install 'ser_jax[tfds]'") from error
    import tensorflow_datasets

    for kind in ("GPU", "TPU"):
        with contextlib.suppress(RuntimeError, ValueError):
            tensorflow.config.set_visible_devices([], kind)
    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets


@functools.lru_cache(maxsize=4)
def _open(directory):
    return _tfds().builder_from_directory(directory)


def _epath(path):
    from etils import epath

    return epath.Path(path)


def _download_config(tfds, builder):
    config = tfds.download.DownloadConfig()
    if isinstance(builder, tfds.core.BeamBasedBuilder):
        from apache_beam.options.pipeline_options import PipelineOptions

        # In-process threads: other processes would not see the stand-in decoder. Named here so that TFDS does not ask.
        config.beam_runner = "DirectRunner"
        config.beam_options = PipelineOptions(["--direct_running_mode=multi_threading", "--direct_num_workers=1"])
    return config
