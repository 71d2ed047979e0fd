"""`ser-jax reproduce`: a paper's table on the embedded corpus and on a miniature IEMOCAP release, by a net of two blocks."""

import csv
import json
from pathlib import Path

import pytest
from iemocap_tree import write_iemocap

from ser_jax import cli, papers
from ser_jax.report.layer_study import study

pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")

TITS = Path(__file__).parents[1] / "configs" / "papers" / "tits2018.py"
SMALL_NET = '''
from ser_jax.config import Data, Experiment, Train
from ser_jax.models.wavenet import WaveNetConfig
from ser_jax.tasks.ctc import CTCConfig

def config():
    return Experiment(
        name="small", model=WaveNetConfig(channels=34, kernel=3, dilations=(1, 2, 1)), task=CTCConfig(bucket_seconds=(5,)),
        data=Data(splits=("train",), eval_splits=("dev",)), train=Train(steps=2, batch_size=4, eval_every=0, save_every=0))
'''
SMALL_PAPER = '''
import dataclasses
from ser_jax.papers import Run, load

def paper():
    whole = load({tits!r})
    run = Run(config={net!r}, reduced={net!r}, reduced_corpora={{"sentences": "--option sentences=matrix --option speakers=6 --option utterances=2"}})
    features = whole.features | {{"egemaps": dataclasses.replace(whole.features["egemaps"], needs="no_such_package")}}
    return dataclasses.replace(whole, runs={{"recogniser": run}}, features=features, reduced_sizes={{"select": "5"}},
                               corpora={{"emotions": "--option speakers=6 --option utterances=8"}})
'''


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Folder of a whole reproduction on the embedded corpus."""
    root = tmp_path_factory.mktemp("paper")
    (root / "net.py").write_text(SMALL_NET)
    (root / "small.py").write_text(SMALL_PAPER.format(tits=str(TITS), net=str(root / "net.py")))
    assert cli.main(["reproduce", str(root / "small.py"), "--out", str(root / "out")]) == 0
    return root / "out"


def lines(out):
    with open(out / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows(out):
    return [json.loads(line) for line in (out / "results_tits2018" / "results.jsonl").read_text().splitlines()]


def test_the_embedded_table_is_stamped_in_every_line(embedded):
    found = lines(embedded)
    assert all("SYNTHETIC" in line["stamps"] for line in found if line["set"] != "eGeMAPS")
    assert all("SYNTHETIC" in row["stamps"] for row in rows(embedded))
    assert "SYNTHETIC" in (embedded / "report.html").read_text(encoding="utf-8")


def test_the_papers_figures_stand_beside_ours(embedded):
    published = {(line["set"], line["target"]): (line["paper"], line["paper ±"]) for line in lines(embedded)
                 if line["table"].startswith("2")}
    assert published["first layers", "arousal"] == ("0.325", "0.069")  # Tits et al. 2018, Table 2
    assert published["all", "valence"] == ("0.621", "0.099")
    line = next(line for line in lines(embedded) if line["table"].startswith("2") and line["set"] == "all")
    assert float(line["ours − paper"]) == pytest.approx(float(line["ours"]) - float(line["paper"]))
    assert float(line["95% CI low"]) <= float(line["pooled"]) <= float(line["95% CI high"])


def test_ours_is_the_mean_over_the_speakers(embedded):
    line = next(line for line in lines(embedded) if line["set"] == "last layers")
    row = next(row for row in rows(embedded) if row["kind"] == "probe" and row["features"]["layer"] == "last-3")
    errors = [fold["MSE"] for fold in row["folds"]]
    assert float(line["ours"]) == pytest.approx(sum(errors) / len(errors))
    assert int(line["speakers"]) == len(errors) == 6


def test_the_leak_stands_below_the_honest_figure(embedded):
    found = [line for line in lines(embedded) if line["table"].startswith("2") and line["target"] == "valence"]
    for honest, leak in zip(found[::2], found[1::2], strict=False):
        if honest["set"] != "eGeMAPS":
            assert "LEAKY" not in honest["stamps"] and leak["stamps"].startswith("LEAKY")
            assert leak["set"].startswith(honest["set"]) and not leak["ours − paper"]


def test_what_needs_a_missing_package_is_said_to_be_missing(embedded):
    assert {line["stamps"] for line in lines(embedded) if line["set"] == "eGeMAPS"} == {"NOT RUN"}


def test_on_a_miniature_iemocap(embedded, tmp_path):
    """The paper's own file, its two sets of turns, and a run that was trained before."""
    spoken = write_iemocap(tmp_path / "release")
    assert cli.main(["prepare", "iemocap", "--source", str(tmp_path / "release"), "--out", str(tmp_path / "iemocap"),
                     "--max-rejects", "1"]) == 0
    (tmp_path / "small.py").write_text(SMALL_PAPER.format(tits=str(TITS), net=""))
    assert cli.main(["reproduce", str(tmp_path / "small.py"), "--corpus", str(tmp_path / "iemocap"), "--workdir",
                     str(embedded / "runs" / "recogniser"), "--step", "last", "--out", str(tmp_path / "out")]) == 0
    found = lines(tmp_path / "out")
    everything = {int(line["n"]) for line in found if line["table"].startswith("1") and line["n"]}
    agreed = {int(line["n"]) for line in found if line["table"].startswith("2") and line["n"]}
    assert everything == {len(spoken)}
    assert agreed == {sum(turn.code != "xxx" for turn in spoken.values())} and agreed != everything
    assert {line["speakers"] for line in found if line["n"]} == {"10"}
    assert all("SYNTHETIC" in line["stamps"] for line in found if line["n"])  # so was the recogniser's corpus
    maps = study(tmp_path / "out" / "features" / "neural.parquet", orders=20)
    assert maps is not None


def test_a_step_that_fails_ends_the_chain_with_its_code(embedded, tmp_path, capsys):
    code = cli.main(["reproduce", str(TITS), "--corpus", str(embedded / "prepared" / "emotions"), "--workdir",
                     str(embedded / "runs" / "recogniser"), "--step", "77", "--out", str(tmp_path / "out")])
    assert code == 2
    assert "the step above ended with 2; change the settings, or choose another --out" in capsys.readouterr().err
    assert not (tmp_path / "out" / "table.csv").exists()


@pytest.mark.parametrize(("arguments", "said"), [
    (["no_such.py"], "no paper file no_such.py"),
    ([str(Path(__file__))], "no function paper()"),
    ([str(TITS), "--workdir", "run", "--set", "train.steps=3"], "give one of them"),
    ([str(TITS), "--corpus", "nowhere"], "--corpus nowhere: no prepared.json"),
    ([str(TITS), "--workdir", "nowhere"], "--workdir nowhere: no config.json"),
])
def test_wrong_use_is_one_line(arguments, said, capsys, monkeypatch, tmp_path):
    """It is told before anything is made or emptied."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", *arguments]) == 2
    assert not list(tmp_path.iterdir())
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error


def test_every_comparison_of_the_paper_has_an_earlier_line():
    paper = papers.load(TITS)
    seen = set()
    for cell in paper.cells:
        assert not cell.versus or (cell.table, cell.versus, cell.column) in seen
        assert cell.features in paper.features
        seen.add((cell.table, cell.row, cell.column))
