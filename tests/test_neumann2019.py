"""`ser-jax reproduce` of a paper of several runs and corpora: on embedded ones, and on miniature IEMOCAP and MSP-IMPROV trees."""

import csv
from pathlib import Path

import pytest
from iemocap_tree import write_iemocap
from msp_improv_tree import write_msp_improv

from ser_jax import cli, papers

pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")

NEUMANN = Path(__file__).parents[1] / "configs" / "papers" / "neumann2019.py"
SMALL_NET = '''
from ser_jax.config import Data, Experiment, Train
from ser_jax.models.autoencoder import AutoencoderConfig
from ser_jax.tasks.reconstruction import ReconstructionConfig

def config():
    return Experiment(
        name="small", model=AutoencoderConfig(units=4), task=ReconstructionConfig(bucket_seconds=(2.0,)),
        data=Data(holdout=0.2), train=Train(steps=2, batch_size=4, eval_every=0, save_every=0))
'''
SMALL_PAPER = '''
import dataclasses
from ser_jax.papers import load

SIZES = {{"seconds": "2", "training": "--seeds 2 --option epochs=2 --option filters=8 --option kernel=4 --option pool=10"}}

KEPT = [("iemocap", "BL"), ("iemocap", "C"), ("msp_improv", "BL"), ("msp_improv", "Li")]

def paper():
    whole = load({paper!r})
    cells = tuple(cell for cell in whole.cells if (cell.column, cell.row) in KEPT)
    files = [name for cell in cells for name in cell.files]
    files += [part for name in files for part in whole.features[name].fuse]
    features = {{name: item for name, item in whole.features.items() if name in files}}
    runs = {{name: dataclasses.replace(run, config={net!r}, reduced={net!r}, reduced_corpora=run.reduced_corpora and
                                      {{"speech": "--option speakers=6 --option utterances=2"}})
            for name, run in whole.runs.items() if name in ("C_iemocap", "Li")}}
    corpora = {{"iemocap": "--option speakers=6 --option utterances=8", "msp_improv": "--option speakers=6 --option utterances=8 --option seed=1"}}
    return dataclasses.replace(whole, cells=cells, runs=runs, features=features, corpora=corpora, sizes=whole.sizes | SIZES,
                               reduced_sizes=whole.reduced_sizes | SIZES)
'''


@pytest.fixture(scope="module")
def small_paper(tmp_path_factory):
    root = tmp_path_factory.mktemp("paper")
    (root / "net.py").write_text(SMALL_NET)
    (root / "small.py").write_text(SMALL_PAPER.format(paper=str(NEUMANN), net=str(root / "net.py")))
    return root / "small.py"


@pytest.fixture(scope="module")
def embedded(small_paper, tmp_path_factory):
    """Folder of a whole reproduction on embedded corpora."""
    out = tmp_path_factory.mktemp("embedded")
    assert cli.main(["reproduce", str(small_paper), "--out", str(out)]) == 0
    return out


def lines(out):
    with open(out / "table.csv", newline="", encoding="utf-8") as file:
        return {(line["target"], line["set"]): line for line in csv.DictReader(file)}


def test_table_1_stands_beside_ours(embedded):
    found = lines(embedded)
    assert list(found) == [("iemocap", "BL"), ("iemocap", "C"), ("msp_improv", "BL"), ("msp_improv", "Li")]
    line = found["msp_improv", "Li"]
    assert [line[key] for key in ("paper", "paper min", "paper max")] == ["0.4482", "0.4298", "0.4633"]
    assert float(line["ours min"]) <= float(line["ours"]) <= float(line["ours max"])
    assert float(line["95% CI low"]) <= float(line["ours"]) <= float(line["95% CI high"])
    assert {(line["seeds"], line["speakers"]) for line in found.values()} == {("2", "6")}


def test_stamps_tell_what_the_autoencoder_has_heard(embedded):
    for (_, row), line in lines(embedded).items():
        stamps = line["stamps"].split()
        assert "SYNTHETIC" in stamps
        assert ("TRANSDUCTIVE" in stamps) == (row == "C")


def test_every_condition_is_compared_with_the_baseline_seed_by_seed(embedded):
    for (_, row), line in lines(embedded).items():
        assert line["versus"] == ("" if row == "BL" else "BL")
        assert bool(line["pooled difference"]) == (row != "BL")


def test_the_page_shows_the_space_and_the_reconstructions(embedded):
    pictures = {path.name.removeprefix("report_") for path in embedded.glob("report_*.png")}
    assert any("tsne" in name for name in pictures) and any("reconstruction" in name for name in pictures)


def test_on_miniature_trees_of_both_corpora(embedded, small_paper, tmp_path):
    """The runs are those of the embedded corpora, so nothing is pretrained; the same voice speaks this miniature IEMOCAP."""
    write_iemocap(tmp_path / "release")
    for name, source in (("iemocap", tmp_path / "release"), ("msp_improv", write_msp_improv(tmp_path / "msp"))):
        assert cli.main(["prepare", name, "--source", str(source), "--out", str(tmp_path / "prepared" / name),
                         "--max-rejects", "1"]) == 0
    words = ["reproduce", str(small_paper), "--out", str(tmp_path / "out")]
    for name in ("iemocap", "msp_improv"):
        words += ["--corpus", f"{name}={tmp_path / 'prepared' / name}"]
    for name in ("C_iemocap", "Li"):
        words += ["--workdir", f"{name}={embedded / 'runs' / name}"]
    assert cli.main(words) == 0
    found = lines(tmp_path / "out")
    stamped = {key for key, line in found.items() if "SYNTHETIC" in line["stamps"]}
    assert stamped == {("iemocap", "C"), ("msp_improv", "Li")}
    assert {line["speakers"] for key, line in found.items() if key[0] == "iemocap"} == {"10"}


def test_what_was_not_run_is_said_so():
    paper = papers.load(NEUMANN)
    assert {line["stamps"] for line in papers.table(paper, {})} == {"NOT RUN"}
    assert [line["paper"] for line in papers.table(paper, {})][:2] == [0.5803, 0.5807]


@pytest.mark.parametrize(("option", "said"), [
    (["--corpus", "somewhere"], "--corpus somewhere: write NAME=DIR; names of this paper: iemocap, msp_improv"),
    (["--corpus", "iemocapp=x"], "did you mean"),
    (["--workdir", "Li=nowhere"], "--workdir nowhere: no config.json"),
])
def test_names_are_asked_for(option, said, capsys):
    assert cli.main(["reproduce", str(NEUMANN), *option]) == 2
    assert said in capsys.readouterr().err


def test_every_cell_names_files_that_are_made():
    paper = papers.load(NEUMANN)
    assert len(paper.cells) == 10
    for cell in paper.cells:
        assert set(cell.files) <= set(paper.features)
    for name, item in paper.features.items():
        assert item.corpus in paper.corpora and (not item.run or item.run in paper.runs), name
