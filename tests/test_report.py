"""`ser-jax report`: rows in, one self-contained page, a CSV and figures out."""

import argparse
import csv
import html.parser
import json
import math
import re
import subprocess
import sys

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.errors import UsageError, UserError
from ser_jax.report import curves, page, rows, tables

HOSTILE = "<script>alert(1)</script>"
EVIL = '"><img src=x onerror=alert(1)>]]>'


def probe_row(**changes):
    row = {
        "kind": "probe",
        "system": "sample_cnn",
        "target": "emotion",
        "metric": "UAR",
        "definition": "mean recall of the classes",
        "value": 0.6134,
        "ci": [0.5712, 0.6551],
        "ci_method": "bootstrap over speakers",
        "n": 1440,
        "n_speakers": 24,
        "chance": 0.5,
        "classes": ["happy", "sad"],
        "confusion": [[600, 120], [180, 540]],
        "secondary": {"WAR": 0.62, "UAR_fold_mean": 0.611},
        "head": "svm",
        "folds": [{"name": "speaker 01", "value": 0.5, "n": 60}],
        "seeds": [0],
        "protocol": {"name": "loso", "hash": "aaaa1111"},
        "features": {"path": "f.parquet", "hash": "bbbb2222", "layer": "conv_9", "pooling": "mean"},
        "corpus": {"name": "ravdess", "fingerprint": "cccc3333"},
        "checkpoint": {"hash": "dddd4444", "step": 120000},
        "experiment": "pretrain/sample_cnn",
        "stamps": ["TEXT-SHARED"],
        "versions": {"jax": "0.10.2"},
        "created": "2026-11-20T15:20:11+0000",
    }
    return {**row, **changes}


def write_rows(folder, *records, name="results.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / name


def write_log(workdir, *records):
    return write_rows(workdir, *records, name="metrics.jsonl").parent


def render(tmp_path, *records, workdirs=()):
    out, _ = page.render([write_rows(tmp_path / "in", *records)], workdirs, tmp_path / "report.html")
    return out.read_text(encoding="utf-8")


class Document(html.parser.HTMLParser):
    """Tags with their attributes, and the text of the table cells, of a page."""

    VOID = {"meta", "img", "br", "link", "path", "use", "rect"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.cells, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def test_the_page_says_what_the_row_says(tmp_path):
    text = render(tmp_path, probe_row())
    cells = [" ".join(cell.split()) for cell in Document(text).cells]
    first = cells.index("R1")
    assert cells[first : first + 12] == [
        "R1", "sample_cnn", "svm", "ravdess", "emotion", "loso", "UAR (%)", "61.3 [57.1, 65.5]", "50.0", "1 440",
        "24", "TEXT-SHARED",
    ]  # fmt: skip
    for needed in ("aaaa1111", "bbbb2222", "cccc3333", "dddd4444", "120000", "pretrain/sample_cnn", "jax 0.10.2"):
        assert needed in text
    for needed in (
        "mean recall of the classes",
        "bootstrap over speakers",
        "UAR fold mean (%) 61.1",
        "speaker 01: 50.0",
    ):
        assert needed in text
    recall = [cell for cell in cells if re.fullmatch(r"\d+\s*(600|120|180|540)", cell)]
    assert recall == ["83600", "17120", "25180", "75540"]  # percent of the row, then the count


def test_the_page_is_self_contained_and_accessible(tmp_path):
    log = write_log(tmp_path / "w", *({"step": step, "kind": "train", "loss": 1.0} for step in (1, 2)))
    classes = [f"c{i}" for i in range(20)]
    large = probe_row(classes=classes, confusion=[[int(i == j) for j in range(20)] for i in range(20)])
    document = Document(render(tmp_path, probe_row(), large, workdirs=[log]))
    kinds = [tag for tag, _ in document.tags]
    assert not {"script", "link", "iframe", "object", "base"} & set(kinds)
    for tag, attributes in document.tags:
        target = attributes.get("src") or attributes.get("href") or attributes.get("xlink:href") or "#"
        assert target.startswith(("#", "data:image/png;base64,")), (tag, target)
        if tag == "img" or (tag == "svg"):
            assert attributes.get("alt") or attributes.get("aria-label")
        if tag == "th":
            assert attributes.get("scope") in ("col", "row", "colgroup", "rowgroup")
    assert kinds.count("img") == 1 and "svg" in kinds  # 20 classes are shown as a picture, the rest is drawn
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {a["href"][1:] for tag, a in document.tags if tag == "a"}
    assert anchors and anchors <= set(ids)
    assert dict(document.tags)["html"] == {"lang": "en"}


def test_markup_in_names_is_text(tmp_path):
    evil = probe_row(
        system=HOSTILE, head=EVIL, target=HOSTILE, metric=EVIL, definition=EVIL, classes=[HOSTILE, EVIL],
        ci_method=EVIL, stamps=[HOSTILE], corpus={"name": HOSTILE}, protocol={"name": EVIL, "hash": HOSTILE},
        experiment={EVIL: [HOSTILE]},
        notes=[HOSTILE], secondary={HOSTILE: 1.0}, folds=[{"name": EVIL, "value": 1.0}], command=HOSTILE, split=EVIL,
        versus={"predictions": HOSTILE, "a": 1, "b": 2},
    )  # fmt: skip
    log = {"step": 1, "kind": "train", "loss": 1.0}, {"step": 1, "kind": "eval", EVIL: 1.0, "loss": 2.0}
    workdir = write_log(tmp_path / 'w"><script>x', *log)
    (workdir / "config.json").write_text(json.dumps({HOSTILE: EVIL}))
    text = render(tmp_path, evil, workdirs=[workdir])
    document = Document(text)
    assert not {"script"} & {tag for tag, _ in document.tags}
    assert all(not name.startswith("on") for _, attributes in document.tags for name in attributes)
    assert [a["src"] for tag, a in document.tags if tag == "img" and not a["src"].startswith("data:")] == []
    assert HOSTILE in "".join(document.text)  # shown, as text
    assert "default-src 'none'" in text


def test_odd_characters_do_not_break_figures(tmp_path):
    odd = probe_row(system="$\\frac{x$ \x00\x07\n日本", head="\ud800", classes=["a\tb", "$x^"], corpus={"name": "_$_"})
    text = render(tmp_path, odd)
    assert "日本" in text and "\x07" not in re.findall(r"<svg.*?</svg>", text, re.S)[0]


def test_rows_with_little_in_them(tmp_path):
    text = render(
        tmp_path, {"metric": "MSE", "value": 0.02}, {"metric": "WER", "value": None, "kind": "evaluate", "ci": None}
    )
    cells = [" ".join(cell.split()) for cell in Document(text).cells]
    assert "0.020 no CI" in cells and "— no CI" in cells and "not audited" in cells


def test_synthetic_rows_are_marked_and_come_last(tmp_path):
    synthetic = probe_row(stamps=["SYNTHETIC"], value=0.99, ci=[0.98, 1.0], corpus={"name": "a synthetic corpus"})
    mixed = render(tmp_path, synthetic, probe_row())
    assert "1 of the 2 results" in mixed and "Every result" not in mixed
    classes = [a["class"] for tag, a in Document(mixed).tags if tag == "tr" and "row" in a.get("class", "").split()]
    assert ["synthetic" in each.split() for each in classes] == [False, True]
    drawn = re.findall(r"<svg.*?</svg>", mixed, re.S)[0]
    assert "SYNTHETIC" in drawn
    assert "Every result" in render(tmp_path, synthetic)
    assert "<strong>SYNTHETIC" not in render(tmp_path, probe_row())


def test_best_first_by_the_direction_of_the_metric(tmp_path):
    file = write_rows(tmp_path, *(probe_row(metric=m, value=v) for m in ("UAR", "WER") for v in (0.3, None, 0.5)))
    ordered, _, _ = rows.read_rows([file])
    assert [(row["metric"], row["value"]) for row in ordered] == [
        ("UAR", 0.5), ("UAR", 0.3), ("UAR", None), ("WER", 0.3), ("WER", 0.5), ("WER", None),
    ]  # fmt: skip
    assert [row.name for row in ordered] == ["R1", "R2", "R3", "R4", "R5", "R6"]


@pytest.mark.parametrize(
    ("ci", "marked"), [([0.4, 0.6], True), ([0.51, 0.6], False), (None, False), ([None, None], False)]
)
def test_an_interval_that_includes_chance_is_marked(tmp_path, ci, marked):
    assert (">CI includes chance<" in render(tmp_path, probe_row(ci=ci))) == marked


def test_equal_input_gives_equal_files(tmp_path):
    file = write_rows(tmp_path / "in", probe_row(), probe_row(metric="CCC", confusion=None, classes=None))
    log = write_log(tmp_path / "w", *({"step": i, "kind": "train", "loss": 1 / (i + 1)} for i in range(400)))
    outputs = []
    for name in ("a", "b"):
        page.render([file], [log], tmp_path / name / "r.html")
        outputs.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {
        "r.html", "r.csv", "r_metric_1.png", "r_metric_2.png", "r_confusion_r2.png", "r_curves_1.png"
    }  # fmt: skip
    assert all(content.startswith(b"\x89PNG") for name, content in outputs[0].items() if name.endswith(".png"))


def test_csv_holds_every_field(tmp_path):
    render(tmp_path, probe_row(), {"metric": "MSE", "value": 0.02, 'odd, "field"': "x\ny"})
    with open(tmp_path / "report.csv", newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["ci_low"], first["ci_high"], first["value"]) == ("0.5712", "0.6551", "0.6134")
    assert (
        first["corpus.name"] == "ravdess" and first["protocol.hash"] == "aaaa1111" and first["stamps"] == "TEXT-SHARED"
    )
    assert json.loads(first["confusion"]) == [[600, 120], [180, 540]]
    assert second['odd, "field"'] == "x\ny" and second["corpus.name"] == ""
    assert len(pandas.read_csv(tmp_path / "report.csv")) == 2


def test_curves_show_each_step_once_and_name_what_is_not_drawn(tmp_path):
    workdir = write_log(
        tmp_path / "run",
        *(
            {"step": s, "kind": "train", "loss": loss, "examples_per_second": 100}
            for s, loss in [(1, 3), (2, None), (3, 9)]
        ),
        {"step": 3, "kind": "eval", "loss": 2.5, "accuracy": 0.25, "seconds": 1.0},
        {"step": 3, "kind": "train", "loss": 2.0, "examples_per_second": 300},  # logged again after a resume
        {"step": 6, "kind": "eval", "loss": 2.0, "accuracy": 0.75},
    )
    pandas.DataFrame({"corpus": ["espeak"] * 3, "speaker_id": ["a", "b", "a"], "part": ["train", "train", "dev"]}).to_parquet(
        workdir / "pretrained_on.parquet"
    )
    (log,), _ = rows.read_logs([workdir])
    assert curves.series(log, "train", "loss") == ([1.0, 3.0], [3.0, 2.0])
    facts = dict(curves.training(log))
    assert facts["best eval accuracy (%)"] == "75.0 at step 6"
    assert facts["examples / s, median"] == "100" and facts["losses that are no finite number"] == "1, not drawn"
    assert facts["pretrained on"] == "espeak: 2 utterances, 2 speakers" and log.synthetic
    assert "Learning curves of run: loss, accuracy (%), examples / s" in render(
        tmp_path, probe_row(), workdirs=[workdir]
    )


def test_the_metric_of_a_log_is_an_error_rate_if_there_is_no_accuracy(tmp_path):
    records = [
        {"step": s, "kind": "eval", "loss": 1.0, "grad_norm": 3, "WER": w} for s, w in [(1, 0.9), (2, 0.2), (3, 0.4)]
    ]
    (log,), _ = rows.read_logs([write_log(tmp_path / "w", *records)])
    assert dict(curves.training(log))["best eval WER (%)"] == "20.0 at step 2"


def test_folders_are_searched_and_no_file_is_read_twice(tmp_path):
    write_rows(tmp_path / "a", probe_row())
    write_rows(tmp_path / "b" / "c", probe_row(value=0.41), probe_row(value=0.42))
    found, sources, _ = rows.read_rows([tmp_path, tmp_path / "a", tmp_path / "a" / "results.jsonl"])
    assert len(found) == 3 and [count for _, count, _ in sources] == [1, 2]


def test_a_result_that_was_made_twice_is_shown_once(tmp_path):
    write_rows(tmp_path, probe_row(created="2026-01-01"), probe_row(created="2026-01-02"))
    found, _, warnings = rows.read_rows([tmp_path])
    assert [row.data["created"] for row in found] == ["2026-01-02"] and "1 repeated rows left out" in warnings[0]


def test_a_torn_last_line_is_left_out_with_a_warning(tmp_path, capsys):
    file = write_rows(tmp_path, probe_row())
    with open(file, "a") as handle:
        handle.write('{"metric": "UAR", "val')
    parser = argparse.ArgumentParser()
    page.add_arguments(parser)
    out = tmp_path / "r.html"
    assert page.run(parser.parse_args([str(file), "--out", str(out)])) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert captured.err.startswith(f"warning: {file}:2: ") and captured.err.count("\n") == 1
    assert "torn" in out.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "7", '{"metric": "UAR"}', '{"value": 1}', '{"metric": 3, "value": 1}',
        '{"metric": "UAR", "value": "x"}', '{"metric": "UAR", "value": true}',
        '{"metric": "UAR", "value": 1, "ci": [1]}', '{"metric": "UAR", "value": 1, "ci": ["a", "b"]}',
        '{"metric": "UAR", "value": 1, "stamps": "LEAKY"}', '{"metric": "UAR", "value": 1, "confusion": [[1, 2]]}',
        '{"metric": "UAR", "value": 1, "confusion": [["a"]]}', '{"metric": "UAR", "value": 1, "folds": [1]}',
        '{"metric": "UAR", "value": 1, "confusion": [[1]], "classes": ["a", "b"]}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, line):
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(probe_row()) + "\n" + line + "\n" + json.dumps(probe_row()) + "\n")
    with pytest.raises(UserError) as error:
        page.render([file], [], tmp_path / "r.html")
    assert str(error.value).startswith(f"{file}:2: ") and "\n" not in str(error.value)
    assert not list(tmp_path.glob("r*.html"))


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"results\.jsonl:1: "):
        rows.read_rows([tmp_path])


@pytest.mark.parametrize("make", ["absent", "empty", "folder"])
def test_no_rows_is_an_error_that_names_the_path(tmp_path, make):
    path = tmp_path / make
    if make == "empty":
        path.write_text("\n")
    if make == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=re.escape(str(path))):
        page.render([path], [], tmp_path / "r.html")


def test_workdir_and_out_are_checked(tmp_path):
    file = write_rows(tmp_path, probe_row())
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        page.render([file], [tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: "):
        page.render([file], [write_log(tmp_path / "w", {"loss": 1})], tmp_path / "r.html")
    with pytest.raises(UsageError, match="--out"):
        page.render([file], [], tmp_path / "r.pdf")
    (tmp_path / "plain").write_text("")
    with pytest.raises(UserError, match="--out"):
        page.render([file], [], tmp_path / "plain" / "r.html")


@given(st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf]) | st.integers() | st.none() | st.text())
def test_any_value_can_be_printed(value):
    for metric in ("UAR", "CCC"):
        text = tables.format_metric(metric, value)
        if rows.number(value) is None:
            assert text == "—"
        else:
            shown = float(text.replace("−", "-")) / (100 if metric == "UAR" else 1)
            assert math.isclose(shown, value, rel_tol=6e-3, abs_tol=6e-4)


@settings(max_examples=50)
@given(
    st.integers(1, 6).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, 99), min_size=k, max_size=k), min_size=k, max_size=k)
    )
)
def test_shares_of_a_row_sum_to_one(matrix):
    for counts, shares in zip(matrix, tables.shares(matrix), strict=True):
        if sum(counts):
            assert math.isclose(sum(shares), 1)
            assert [round(share * sum(counts)) for share in shares] == counts
        else:
            assert set(shares) == {None}


def test_spans_of_row_names():
    assert tables.spans(["R7", "R1", "R2", "R3", "R9", "R10"]) == "R1–R3, R7, R9, R10"


def test_help_stays_cheap():
    code = (
        "import sys, ser_jax.report.page; print({'matplotlib', 'jinja2', 'pandas', 'jax', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def regression_row(**changes):
    return probe_row(
        target="arousal", metric="MSE", value=0.325, ci=[0.3, 0.35], chance=0.492, classes=None, confusion=None, head="ols",
        secondary={"CCC": 0.51, "MSE": 0.325, "MSE_fold_mean": 0.331, "MSE_fold_std": 0.069},
        folds=[{"name": "s1", "value": 0.3, "n": 60, "CCC": 0.5, "MSE": 0.3}, {"name": "s2", "value": None, "n": 9, "CCC": None}],
        features={"hash": "bb", "layer": "first-3", "layers": ["gcu_01", "gcu_02", "gcu_03"]}, **changes,
    )  # fmt: skip


def test_a_regression_shows_its_layers_and_the_spread_of_its_folds(tmp_path):
    text = render(tmp_path, regression_row())
    cells = [" ".join(cell.split()) for cell in Document(text).cells]
    first = cells.index("R1")
    assert cells[first + 1 : first + 9] == [
        "sample_cnn first-3", "ols", "ravdess", "arousal", "loso", "MSE", "0.325 [0.300, 0.350] folds 0.331 ± 0.069", "0.492"
    ]  # fmt: skip
    assert "MSE folds 0.331 ± 0.069 (mean ± std)" in text and "CCC 0.510" in text
    fold = cells.index("s1")
    assert cells[fold : fold + 8] == ["s1", "0.500", "0.300", "60", "s2", "—", "—", "9"]


def seeded_row(**changes):
    values = [0.60, 0.62, 0.61, 0.63]
    pair = {"predictions": "bl.parquet", "a": 0.615, "b": 0.605, "difference": 0.01, "ci": [-0.01, 0.03], "p_value": 0.2, "n": 1440,
            "n_speakers": 24, "seeds_only_there": [4], "seeds": {"names": [0, 1, 3], "values": [0.02, -0.004, 0.014], "mean": 0.01,
                                                                 "min": -0.004, "max": 0.02, "std": 0.0125}}  # fmt: skip
    found = {"UAR_seed_min": 0.6, "UAR_seed_max": 0.63, "UAR_seed_std": 0.0129, "UAR_seeds": values, "WAR": 0.6}
    return probe_row(value=0.615, head="attentive_cnn", seeds=[0, 1, 2, 3], secondary=found, versus=pair,
                     confusion=[[600.25, 119.75], [180, 1440]], **changes)  # fmt: skip


def test_several_seeds_are_shown_with_their_spread_and_one_by_one(tmp_path):
    text = render(tmp_path, seeded_row())
    cells = [" ".join(cell.split()) for cell in Document(text).cells]
    assert "61.5 [57.1, 65.5] 4 seeds 60.0 to 63.0, std 1.3" in cells
    table = re.search(r"seed by seed</dt>.*?</table>", text, re.S)[0]
    assert re.findall(r"<t[hd][^>]*>([^<]*)</t", table) == [
        "seed", "UAR (%)", "difference (%)", "0", "60.0", "2.0", "1", "62.0", "−0.4", "2", "61.0", "—", "3", "63.0", "1.4"
    ]  # fmt: skip
    said = "Seed by seed: difference 1.0 on average, −0.4 to 2.0, std 1.2; above 0 with 2 of 3 seeds. Left out: seeds 4, only there."
    assert said in text and "Thin marks: the seeds. " in text and "WAR (%) 60.0." in text
    assert "mean of 4 seeds" in text and "83600.2" in cells and "891 440" in cells
    with open(tmp_path / "report.csv", newline="", encoding="utf-8") as file:
        (line,) = csv.DictReader(file)
    assert (line["seed_min"], line["seed_max"], line["seed_std"]) == ("0.6", "0.63", "0.0129")
    assert json.loads(line["versus.seeds.values"])[1] == -0.004 and line["versus.seeds.mean"] == "0.01"


def test_one_seed_has_no_spread(tmp_path):
    one = {"UAR_seed_min": 0.6, "UAR_seed_max": 0.6, "UAR_seed_std": None, "UAR_seeds": [0.6], "WAR": 0.6}
    pair = {"a": 0.6, "b": 0.5, "seeds": {"names": [0], "values": [0.1], "mean": 0.1, "min": 0.1, "max": 0.1, "std": None}}
    text = render(tmp_path, probe_row(secondary=one, seeds=[0], versus=pair))
    assert "WAR (%) 60.0." in text and "eed by seed" not in text and "1 seeds" not in text and "mean of" not in text


def test_the_leaking_figure_stands_below_the_honest_one(tmp_path):
    leaky = regression_row(stamps=["LEAKY"]) | {"value": 0.2, "head": "ols selection=all-data"}
    ordered, _, _ = rows.read_rows([write_rows(tmp_path, leaky, regression_row(stamps=[]))])
    assert [row.stamps for row in ordered] == [[], ["LEAKY"]]


@pytest.mark.parametrize(
    ("metric", "ci", "chance", "says"),
    [
        ("MSE", [0.5, 0.6], 0.49, "worse than chance"), ("MSE", [0.3, 0.4], 0.49, ""), ("WER", [1.1, 1.2], 1.0, "worse than chance"),
        ("CCC", [-0.3, -0.1], 0.0, "worse than chance"), ("CCC", [0.1, 0.2], 0.0, ""), ("CCC", [-0.1, 0.2], 0.0, "CI includes chance"),
    ],
)  # fmt: skip
def test_chance_is_judged_by_the_direction_of_the_metric(metric, ci, chance, says):
    row = rows.Row(probe_row(metric=metric, value=sum(ci) / 2, ci=ci, chance=chance), "f", 1, 1)
    assert tables.summary(row)["verdict"] == says


def test_decoded_sentences_are_shown_once_with_the_words_that_differ(tmp_path):
    examples = [
        {"id": "u1", "reference": "the cat sat on the mat", "hypothesis": "the cad sat on mat"},
        {"id": "u2", "reference": HOSTILE, "hypothesis": ""},
    ]
    both = [
        {
            "kind": "evaluate", "metric": metric, "value": value, "ci": [value, value], "chance": 1.0, "examples": examples,
            "secondary": {f"{metric} of spaces": 1.25},
        }
        for metric, value in (("WER", 0.8), ("CER", 0.4))
    ]  # fmt: skip
    text = render(tmp_path, *both)
    shown = re.search(r'<table class="examples">.*?</table>', text, re.S)[0]
    assert text.count('<table class="examples">') == 1 and "script" not in {tag for tag, _ in Document(text).tags}
    assert re.findall("<mark>(.*?)</mark>", shown) == ["cat", "the", "cad", "&lt;script&gt;alert(1)&lt;/script&gt;"]
    assert "(nothing)" in shown and "WER of spaces (%) 125.0" in text and "CER (%)" in text
    file = write_rows(tmp_path, {"metric": "WER", "value": 1, "examples": ["x"]})
    with pytest.raises(UserError, match="examples must be objects"):
        rows.read_rows([file])


def test_learning_curves_alone_make_a_page(tmp_path):
    log = write_log(tmp_path / "w", *({"step": s, "kind": "train", "loss": 9.0, "loss_per_character": 1.0} for s in (1, 2)))
    text = page.render([], [log], tmp_path / "r.html")[0].read_text(encoding="utf-8")
    assert "Learning curves of w: loss, loss per character" in text and '<h2 id="results">' not in text
    assert {a["href"] for tag, a in Document(text).tags if tag == "a"} == {"#curves"}
