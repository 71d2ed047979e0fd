"""Shared fixtures: compiled programs are kept for the whole session, children of tests included."""

import os
import subprocess
import sys

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """One cache of compiled programs for all processes: this one, those beside it (xdist), and those that a test starts."""
    if "SER_JAX_CACHE" not in os.environ:
        root = tmp_path_factory.getbasetemp()
        os.environ["SER_JAX_CACHE"] = str((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "xla")
    return os.environ["SER_JAX_CACHE"]


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """Folder of a prepared corpus: 8 speakers of 4 utterances of 0.2 to 1.13 s; s7 and s8 are the split "test"."""
    from corpus_files import EMOTIONS, prepare_tree, speaker_voice, write_audio, write_table

    root, rows = tmp_path_factory.mktemp("tiny"), []
    for number in range(1, 9):
        for i, seconds in enumerate((0.2, 0.33, 0.5, 1.13)):
            path = f"s{number}_{i}.wav"
            write_audio(root / path, speaker_voice(number, seconds, i, emotion=i))
            rows.append({"path": path, "id": f"s{number}_{i}", "speaker_id": f"s{number}", "emotion": EMOTIONS[i],
                         "gender": "male" if number % 2 else "female", "text": f"sentence {number} {i}", "valence": i / 3,
                         "split": "test" if number > 6 else "train"})
    write_table(root / "manifest.csv", rows)
    return prepare_tree("manifest", root, root / "prepared", {"name": "tiny"}, shards=2).path


@pytest.fixture(scope="session")
def tiny_experiment(tiny_corpus):
    """A net of a few thousand parameters on `tiny_corpus`: steps of 81 samples, pieces of at least 2,000."""
    from ser_jax.config import Data, Experiment, Train
    from ser_jax.models.sample_cnn import SampleCNNConfig
    from ser_jax.tasks.gender import GenderConfig

    return Experiment(
        name="tiny",
        model=SampleCNNConfig(stem_filters=8, filters=(8, 8, 16), final_filters=12),
        task=GenderConfig(crop_seconds=0.3, min_samples=2_000),
        data=Data(corpora=(str(tiny_corpus),), splits=("train",), holdout=0.3),
        train=Train(steps=3, batch_size=8, log_every=1, eval_every=0, save_every=0),
    )


@pytest.fixture(scope="session")
def trained_workdir(tiny_experiment, tmp_path_factory):
    """Workdir of `tiny_experiment` after its three steps; read only: copy it before changing anything."""
    from ser_jax.train import train

    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert train(tiny_experiment, workdir) == 0
    return workdir


@pytest.fixture(scope="session")
def eight_devices(trained_workdir, tiny_corpus, tmp_path_factory):
    """Folder with what `eight_devices.py` computes in a process of eight simulated devices."""
    out, here = tmp_path_factory.mktemp("eight"), os.path.dirname(__file__)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    path = os.pathsep.join([os.path.dirname(here), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, os.path.join(here, "eight_devices.py"), trained_workdir, tiny_corpus, out]
    subprocess.run(command, check=True, env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path})
    return out


@pytest.fixture(scope="session")
def two_corpora(tmp_path_factory):
    """Two prepared corpora of different size: 6 RAVDESS actors of 8 utterances, 4 speakers of 5 in a manifest."""
    from corpus_files import prepare_tree, write_manifest, write_ravdess

    root = tmp_path_factory.mktemp("two")
    write_ravdess(root / "ravdess", actors=range(1, 7), seconds=0.4)
    write_manifest(root / "manifest", seconds=0.3)
    return [prepare_tree(name, root / name, root / "prepared" / name).path for name in ("ravdess", "manifest")]


@pytest.fixture(scope="session")
def uninterrupted(two_corpora, tmp_path_factory):
    """Workdir of `small_config.py` on `two_corpora`, trained to the end in one go on one device; read only."""
    import training

    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    assert training.pretrain(two_corpora, workdir) == 0
    return workdir
