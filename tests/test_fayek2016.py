"""`ser-jax reproduce configs/papers/fayek2016.py`: the transfer study on embedded corpora by a tiny net, and its figures."""

import csv
import json
from pathlib import Path

import pytest
from iemocap_tree import write_iemocap
from official_archives import write_tree
from timit_tree import speech, timit_files

from ser_jax import cli, papers
from ser_jax.errors import UserError
from ser_jax.report import filters, page, transfer_figures
from ser_jax.tasks.frames import SPEC
from ser_jax.trials import Trials

pytest.importorskip("espeakng_loader", reason="needs the [demo] extra")

FAYEK = Path(__file__).parents[1] / "configs" / "papers" / "fayek2016.py"
SIZES = ["--size", "rows=ASR*Base,ASR*l=5", "--size", "folds=2", "--set", "train.steps=2", "--set", "train.eval_every=0",
         "--set", "optim.plateau=0", "--set", "train.patience=0", "--set", "train.batch_size=4", "--set", "task.frames=4", "--set", "model.dense=6,6,6",
         "--set", "model.conv_channels=3,4", "--set", "model.context=7"]
SMALL = '''
import dataclasses
from ser_jax.papers import load

def paper():
    return dataclasses.replace(load({fayek!r}), corpora={{"asr": "--option speakers=6 --option utterances=1",
                                                        "ser": "--option speakers=6 --option utterances=4 --option seed=1"}})
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of a whole reproduction at test size."""
    root = tmp_path_factory.mktemp("fayek")
    (root / "small.py").write_text(SMALL.format(fayek=str(FAYEK)))
    assert cli.main(["reproduce", str(root / "small.py"), *SIZES, "--out", str(root / "out")]) == 0
    return root


def lines(root):
    with open(root / "out" / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_figure_of_the_paper_stands_in_the_table(root):
    found = {(line["table"], line["set"], line["target"], line["part"]): line["paper"] for line in lines(root)}
    assert found["SER → ASR", "l=5", "FER", "dev"] == "0.7109"  # Fayek et al. 2016, their tables
    assert found["SER → ASR", "Base", "PER", "test"] == "0.2018"
    assert found["ASR → SER", "l=0", "UE", "test"] == "0.4895"
    assert found["ASR → SER", "l=3", "E", "dev"] == "0.5022"
    assert sum(value != "" for value in found.values()) == 2 * 7 * 4


def test_rows_that_were_not_asked_for_are_said_to_be_missing(root):
    for line in lines(root):
        wanted = line["table"] == "ASR → SER" and line["set"] in ("Base", "l=5")
        assert (line["stamps"] != "NOT RUN") == wanted == (line["ours"] != "")
        assert line["stamps"] == "NOT RUN" or "SYNTHETIC" in line["stamps"]


def test_what_is_missing_to_1_is_of_all_folds_together(root):
    """Counted anew from the confusion matrices that `evaluate` wrote for each fold."""
    wrong = tested = 0
    for fold in ("fold_1", "fold_2"):
        rows = [json.loads(line) for line in
                (root / "out" / "scores" / f"asr_to_ser_5_{fold}" / "test" / "results.jsonl").read_text().splitlines()]
        counts = next(row["confusion"] for row in rows if row["metric"] == "WAR" and row["split"].endswith("utterance"))
        tested += sum(map(sum, counts))
        wrong += sum(map(sum, counts)) - sum(counts[i][i] for i in range(4))
    line = next(line for line in lines(root) if (line["table"], line["set"], line["target"], line["part"])
                == ("ASR → SER", "l=5", "E", "test"))
    assert float(line["pooled"]) == pytest.approx(wrong / tested)
    assert (int(line["n"]), int(line["speakers"]), int(line["folds"])) == (tested, 4, 2) and tested == 16
    assert float(line["95% CI low"]) <= float(line["pooled"]) <= float(line["95% CI high"])
    assert line["versus"] == "Base"
    assert float(line["difference low"]) <= float(line["pooled difference"]) <= float(line["difference high"])


def test_constant_layers_are_those_of_the_source(root):
    from ser_jax import transfer
    from ser_jax.checkpoint import Trained

    theirs, ours = (transfer.flat(Trained(root / "out" / "runs" / name).params) for name in ("asr", "asr_to_ser_5_fold_2"))
    layers = [path for path in ours if path.startswith("layer_")]
    assert layers and all((ours[path] == theirs[path]).all() for path in layers)


def test_the_plan_of_the_whole_paper(root):
    """Nothing is trained here: which run starts from which, and what of it is held constant."""
    paper = papers.load(FAYEK)
    corpora = {name: root / "out" / "prepared" / name for name in ("asr", "ser")}
    plan = Trials(paper, corpora, workdirs={}, labels={}, sizes=paper.sizes, out=Path("out"), step="best", reduced=False,
                  overrides=["model.dense=8,8,8", "asr:train.steps=7", "asr_to_ser_*:train.steps=9"]).trials
    assert {name: len(folds) for name, folds in plan.items()} == {
        "asr": 1, "ser": 4, **{f"ser_to_asr_{n}": 1 for n in range(6)}, **{f"asr_to_ser_{n}": 4 for n in range(6)}}
    first, = plan["ser_to_asr_2"]
    assert plan["ser"][0].job in first.job.after and "transfer.init_from=out/runs/ser_fold_1 " in first.job.verbs[0]
    for text in ("transfer.freeze_layers=2", "model.dense=8,8,8", "train.steps=7"):
        assert f"--set {text}" in first.job.verbs[0]
    third = plan["asr_to_ser_0"][2].job
    assert plan["asr"][0].job in third.after and "train.steps=9" in third.verbs[0] and "train.steps=7" not in third.verbs[0]
    assert plan["asr"][0].job.verbs[2].startswith("evaluate out/runs/asr --step best --corpus ") and third.verbs[2].count("--part test") == 1


@pytest.mark.slow
def test_on_miniature_timit_and_iemocap(tmp_path):
    """The paper's own configs, official parts of TIMIT, sessions of IEMOCAP: the last is dev, the 8 others take turns."""
    write_tree(tmp_path / "TIMIT", timit_files())
    write_iemocap(tmp_path / "release")
    for corpus, source in (("timit", "TIMIT"), ("iemocap", "release")):
        assert cli.main(["prepare", corpus, "--source", str(tmp_path / source), "--out", str(tmp_path / corpus),
                         "--max-rejects", "1"]) == 0
    wanted = ["--size", "rows=SER*Base,ASR*l=5", *SIZES[2:]]
    assert cli.main(["reproduce", str(FAYEK), "--corpus", f"asr={tmp_path / 'timit'}", "--corpus", f"ser={tmp_path / 'iemocap'}",
                     *wanted, "--out", str(tmp_path / "out")]) == 0
    found = {(line["table"], line["set"], line["target"], line["part"]): line for line in lines(tmp_path) if line["ours"]}
    dev, test = (found["SER → ASR", "Base", "FER", part] for part in ("dev", "test"))
    assert (dev["speakers"], test["speakers"]) == ("2", "1") and int(test["n"]) == 2 * SPEC.num_frames(len(speech("SX37", 0)))
    assert found["ASR → SER", "l=5", "UE", "test"]["speakers"] == "8" and found["ASR → SER", "l=5", "UE", "dev"]["speakers"] == "2"
    assert 0 <= float(found["ASR → SER", "l=5", "UE", "test"]["ours"]) <= 1
    config = json.loads((tmp_path / "out/runs/asr_to_ser_5_fold_1/config.json").read_text())
    assert set(config["data"]["dev_speakers"]) == {"Ses05F", "Ses05M"} and config["transfer"]["freeze_layers"] == 5
    assert config["task"]["classes"] == ["angry", "happy+excited", "neutral+calm", "sad"] and config["optim"]["l2"] == 1e-3


def test_a_second_call_trains_nothing_and_gives_the_same_table(root, capsys):
    before = (root / "out" / "table.csv").read_bytes()
    (root / "out" / "table.csv").unlink()
    assert cli.main(["reproduce", str(root / "small.py"), *SIZES, "--out", str(root / "out")]) == 0
    said = capsys.readouterr().out
    assert "7 of 7 runs are done already" in said and "$ ser-jax pretrain" not in said
    assert (root / "out" / "table.csv").read_bytes() == before


def test_the_page_shows_curves_and_filters(root):
    text = (root / "out" / "report.html").read_text(encoding="utf-8")
    assert "layers held constant" in text and "First-layer filters" in text and "SYNTHETIC" in text
    made = {path.name for path in (root / "out").glob("report_*.png")}
    assert {"report_transfer_1.png", "report_transfer_2.png", "report_filters_1.png", "report_filters_2.png"} <= made


def test_filters_are_those_of_the_net_by_falling_energy(root):
    from ser_jax.checkpoint import Trained

    each = filters.read(root / "out" / "runs" / "asr")
    kernel = Trained(root / "out" / "runs" / "asr").params["layer_1"]["conv"]["kernel"]
    assert each.kernel.shape == (3, 4, 5)  # time, mel
    energy = [float((part**2).sum()) for part in each.kernel]
    assert energy == sorted(energy, reverse=True)
    for place, number in enumerate(each.order):
        assert (each.kernel[place] == kernel[:, :, 0, number]).all()


def test_a_net_without_such_a_layer_has_no_filters(trained_workdir, tmp_path):
    with pytest.raises(UserError, match="no first convolution over time and mel bands"):
        page.render([], [], tmp_path / "page.html", filters=[trained_workdir])


@pytest.mark.parametrize(("more", "said"), [
    (["--size", "fold=3"], "--size fold=3: write NAME=VALUE (did you mean 'folds'?)"),
    (["--size", "rows=none"], "no row of the paper fits --size rows=none"),
    (["--set", "tts:train.steps=3"], "no run or corpus 'tts'"),
    (["--jobs", "0"], "--jobs 0: must be at least 1"),
    (["--labels", "asr=nowhere.parquet"], "--labels asr=nowhere.parquet: no such file"),
])
def test_wrong_use_is_one_line(root, more, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    corpora = [part for name in ("asr", "ser") for part in ("--corpus", f"{name}={root / 'out' / 'prepared' / name}")]
    assert cli.main(["reproduce", str(FAYEK), *corpora, *more]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_every_comparison_has_its_line_and_every_run_its_source():
    paper = papers.load(FAYEK)
    known = {(one.table, one.row, one.column, one.part) for one in paper.scored}
    assert len(known) == len(paper.scored)
    for one in paper.scored:
        assert not one.versus or (one.table, one.versus, one.column, one.part) in known
        assert one.run in paper.runs
    for run in paper.runs.values():
        assert run.on in paper.corpora and (not run.source or run.source in paper.runs) and run.labels in paper.labels


# ------------------------------------------------------------------------------------------------ curves alone
def test_curves_are_those_of_the_test_part(tmp_path):
    header = ",".join(transfer_figures.NEEDED)
    (tmp_path / "table.csv").write_text(
        f"{header}\nA → B,Base,E,test,0.4,0.5,0.4,0.6,,\nA → B,l=1,E,test,,0.6,,,Base,\nA → B,l=0,E,test,0.7,,,,,NOT RUN\n"
        "A → B,l=1,E,dev,,0.9,,,Base,\nother,first,UAR,test,0.1,0.2,,,,\n", encoding="utf-8")
    study, = transfer_figures.read(tmp_path / "table.csv")
    assert (study.name, list(study.panels), study.synthetic) == ("A → B", ["E"], False)
    assert [(point.layers, point.paper, point.ours, point.interval) for point in study.panels["E"]] == [
        (None, 0.4, 0.5, (0.4, 0.6)), (0, 0.7, None, None), (1, None, 0.6, None)]


@pytest.mark.parametrize(("text", "said"), [
    ("a,b\n1,2\n", "no column 'table'"),
    (",".join(transfer_figures.NEEDED) + "\nA,first,E,test,0.4,0.5,,,,\n", "no row such as l=3"),
    (",".join(transfer_figures.NEEDED) + "\nA,l=1,E,test,0.4,much,,,,\n", "could not convert"),
])
def test_another_table_has_no_curves(text, said, tmp_path):
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        transfer_figures.read(tmp_path / "table.csv")
