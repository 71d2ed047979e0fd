"""Every benchmark runs at a tiny size and ends with its ratio."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(script, *options):
    """(stdout lines, content of the JSON) of a benchmark in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--quick", *map(str, options)],
                          capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def check(lines, path):
    """The last line is the ratio, equal to the last one of the JSON, which also has facts and table."""
    what, _, value = lines[-1].removeprefix("ratio: ").rpartition(" = ")
    content = json.loads(path.read_text())
    assert lines[-1].startswith("ratio: ") and math.isfinite(float(value)) and float(value) > 0
    assert content["ratios"][what] == pytest.approx(float(value), abs=6e-4)
    assert content["table"] and {"cpu", "threads", "versions", "load_start", "load_end"} <= content["machine"].keys()
    return content


def test_input_pipeline(tmp_path):
    content = check(run("input_pipeline", "--json", tmp_path / "out.json"), tmp_path / "out.json")
    assert [row["pipeline"] for row in content["table"]] == ["ser_jax, threads", "ser_jax, 2 workers"]


def test_pitch_baseline(tmp_path):
    pytest.importorskip("librosa", reason="needs librosa")
    content = check(run("pitch_baseline", "--json", tmp_path / "out.json"), tmp_path / "out.json")
    # Tones at 110 and 210 Hz: the baseline must tell them apart on speakers it has not seen.
    assert [float(row["accuracy"]) for row in content["table"]] == [1.0, 1.0]
    assert 120 < content["decision_hz"] < 190


@pytest.mark.slow
def test_sample_cnn_step(tmp_path):
    pytest.importorskip("torch", reason="needs torch, the peer of this benchmark")
    lines = run("sample_cnn_step", "--json", tmp_path / "out.json")
    content = check(lines, tmp_path / "out.json")
    assert sum(line.startswith("same net") for line in lines) == 2
    assert [row["step"] for row in content["table"]] == ["ser_jax", "torch Conv1d", "torch channels_last"]


@pytest.mark.slow
def test_sample_cnn_export(tmp_path):
    pytest.importorskip("torch", reason="needs torch, the peer of this benchmark")
    content = check(run("sample_cnn_export", "--json", tmp_path / "out.json"), tmp_path / "out.json")
    assert 0 < content["padding"]["ends"] < 0.2


@pytest.mark.slow
def test_wavenet_step(tmp_path):
    pytest.importorskip("torch", reason="needs torch, the peer of this benchmark")
    lines = run("wavenet_step", "--json", tmp_path / "out.json")
    content = check(lines, tmp_path / "out.json")
    assert sum(line.startswith("same net") for line in lines) == 2
    assert [row["step"] for row in content["table"]] == ["ser_jax", "torch Conv1d", "torch channels_last"]
    assert lines[-1].startswith("ratio: ser_jax / torch")


@pytest.mark.slow
@pytest.mark.parametrize(("front_end", "library"), [("mfcc", "librosa"), ("audeep", "scipy"), ("logmel", "scipy")])
def test_front_ends(front_end, library, tmp_path):
    pytest.importorskip("librosa", reason="needs librosa")
    pytest.importorskip("torch", reason="needs torch, a peer of this benchmark")
    lines = run("front_ends", "--front-end", front_end, "--json", tmp_path / "out.json")
    assert sum(line.startswith("same features") for line in lines) == 3
    assert lines[-1].startswith(f"ratio: ser_jax / {library}, CPU")
    assert check(lines, tmp_path / "out.json")["machine"]["threads"] == 1


@pytest.mark.slow
def test_ctc(tmp_path):
    pytest.importorskip("torch", reason="needs torch, the peer of this benchmark")
    lines = run("ctc", "--json", tmp_path / "out.json")
    assert lines[0].startswith("same loss") and check(lines, tmp_path / "out.json")["machine"]["threads"] == 1


def test_ratio_is_the_median_within_rounds(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import timing

    ticks = iter(np.cumsum([0, 1, 0, 2, 0, 20, 0, 30, 0, 3, 0, 9]).astype(float))  # begin and end of six calls
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    calls = []
    seconds = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, warmup=0)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert seconds["wall"]["a"].tolist() == [1, 30, 3] and seconds["wall"]["b"].tolist() == [2, 20, 9]
    assert timing.ratio(seconds, "a", "b")["wall"] == 0.5  # of 1/2, 30/20, 3/9; the ratio of the medians is 1/3


@pytest.mark.slow
def test_attentive_cnn_step(tmp_path):
    pytest.importorskip("torch", reason="needs torch, the peer of this benchmark")
    lines = run("attentive_cnn_step", "--json", tmp_path / "out.json")
    content = check(lines, tmp_path / "out.json")
    assert sum(line.startswith("same net") for line in lines) == 3
    assert [row["step"] for row in content["table"]] == ["ser_jax", "torch Conv2d", "torch Conv1d", "torch unfold"]


@pytest.mark.slow
def test_replicas(tmp_path):
    pytest.importorskip("torch", reason="needs torch, the peer of this benchmark")
    content = check(run("replicas", "--threads", 1, "--json", tmp_path / "out.json"), tmp_path / "out.json")
    assert [row["loop"] for row in content["table"]] == ["ser_jax, 1 in a program", "ser_jax, 2 in a program", "torch, one process"]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["autoencoder_step", "autoencoder_export"])
def test_autoencoder(script, tmp_path):
    pytest.importorskip("torch", reason="needs torch, the peer of this benchmark")
    lines = run(script, "--threads", 1, "--json", tmp_path / "out.json")
    content = check(lines, tmp_path / "out.json")
    assert lines[0].startswith("same net")
    what = "step" if script == "autoencoder_step" else "vectors"
    assert [row[what] for row in content["table"]] == ["ser_jax", "torch nn.GRU", "torch TF1 cell"]


@pytest.mark.slow
def test_convnet_step(tmp_path):
    pytest.importorskip("torch", reason="needs torch, the peer of this benchmark")
    lines = run("convnet_step", "--threads", 1, "--json", tmp_path / "out.json")
    content = check(lines, tmp_path / "out.json")
    assert sum(line.startswith("same net") for line in lines) == 2
    assert {row["what"].split(",")[0] for row in content["table"]} == {"step", "forward"} and len(content["table"]) == 7


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--align",)])
def test_viterbi(options, tmp_path):
    lines = run("viterbi", *options, "--json", tmp_path / "out.json")
    assert sum(line.startswith("same paths") for line in lines) == (2 if options else 3)
    assert lines[-1].startswith("ratio: ser_jax / numpy, CPU")
    assert check(lines, tmp_path / "out.json")["machine"]["threads"] == 1
