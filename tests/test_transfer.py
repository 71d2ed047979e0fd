"""Start from another run and freeze layers: what is copied, what stays constant to the bit, what is refused, what is told."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training import assert_same_state, finish, saved_state, start

from ser_jax import cli, transfer
from ser_jax.checkpoint import Trained
from ser_jax.config import Transfer, to_dict
from ser_jax.errors import UsageError, UserError
from ser_jax.models.sample_cnn import SampleCNNConfig
from ser_jax.network import Network
from ser_jax.train import train

HEAD = ("head/kernel", "head/bias")


@pytest.fixture(scope="module")
def tiny(tiny_experiment):
    """A net that is quick to compile: two blocks, one of which changes the width."""
    return dataclasses.replace(tiny_experiment, model=SampleCNNConfig(stem_filters=4, filters=(4, 6), final_filters=5))


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "source"
    assert train(tiny, workdir) == 0
    return Trained(workdir)


def settings(experiment, source, steps=2, **fields):
    """The experiment, begun from `source`, with other random numbers."""
    return dataclasses.replace(experiment, transfer=Transfer(init_from=str(source.workdir), **fields),
                               train=dataclasses.replace(experiment.train, steps=steps, seed=11))


def model_of(workdir, step=None):
    """({path: array} of params, of stats) of a checkpoint."""
    state = saved_state(workdir, step)
    return [{name.removeprefix(f"['model']['{part}']").strip("[']").replace("']['", "/"): leaf for name, leaf in state.items()
             if name.startswith(f"['model']['{part}']")} for part in ("params", "stats")]


def test_what_is_frozen_stays_to_the_bit_and_the_rest_is_trained(tiny, source, tmp_path, capsys):
    experiment = settings(tiny, source, steps=1, freeze_layers=2, freeze=("block_2/norm_1", "final/kernel"))
    assert train(experiment, tmp_path / "run") == 0
    told = capsys.readouterr().err
    params, stats = model_of(tmp_path / "run")
    theirs = transfer.flat(source.params), transfer.flat(source.stats)
    frozen = {path for path in params if path.split("/")[0] in ("stem", "stem_norm", "block_1")
              or path.startswith("block_2/norm_1/") or path == "final/kernel"}
    assert len(frozen) > 10
    for path, leaf in params.items():
        if not path.endswith("/input_bias"):  # which has no gradient
            assert np.array_equal(leaf, theirs[0][path]) == (path in frozen), path
    held = {path for path in stats if path.split("/")[0] in ("stem_norm", "block_1") or path.startswith("block_2/norm_1/")}
    for path, leaf in stats.items():  # constant layers are in inference mode; the others keep counting
        assert np.array_equal(leaf, theirs[1][path]) == (path in held), path
    assert "loaded, frozen block_1/conv_1: kernel (48)" in told and "new            head: bias kernel (12)" in told
    assert "left behind    head/kernel" not in told  # a head of the same name has its line above
    optimiser = [name for name in saved_state(tmp_path / "run") if "'opt'" in name]
    assert not [name for name in optimiser if "stem" in name] and [name for name in optimiser if "block_2" in name]


def carried(experiment, source):
    return transfer.carry(experiment, *jax.eval_shape(lambda: Network(experiment).init(0)), source)


@pytest.mark.parametrize(("fields", "loaded"), [
    ({}, lambda path: path not in HEAD),
    ({"above": "random", "freeze_layers": 2}, lambda path: path.split("/")[0] in ("stem", "stem_norm", "block_1")),
    ({"head": "source"}, lambda path: True),
    ({"reinit": ("block_2/*", "*/bias")}, lambda path: path not in HEAD and "block_2" not in path and not path.endswith("/bias"))])
def test_what_is_copied(tiny, source, fields, loaded):
    found = carried(settings(tiny, source, **fields), source)
    theirs = transfer.flat(source.params), transfer.flat(source.stats)
    for leaves, their in zip((found.params, found.stats), theirs, strict=True):
        assert leaves.keys() == {path for path in their if loaded(path)}
        assert all(leaves[path] is their[path] for path in leaves)


def test_what_is_copied_is_what_the_run_starts_from(tiny, source, tmp_path):
    train(settings(tiny, source, reinit=("stem",)), tmp_path / "run", stop_after=0)
    train(dataclasses.replace(settings(tiny, source), transfer=Transfer()), tmp_path / "random", stop_after=0)
    (params, stats), (fresh, _) = model_of(tmp_path / "run"), model_of(tmp_path / "random")
    theirs = transfer.flat(source.params)
    for path, leaf in params.items():
        np.testing.assert_array_equal(leaf, (fresh if path in (*HEAD, "stem/kernel") else theirs)[path], err_msg=path)
    assert all(np.array_equal(stats[path], leaf) for path, leaf in transfer.flat(source.stats).items())
    assert np.any(stats["block_1/norm_1/mean"] != 0) and not np.array_equal(fresh["stem/kernel"], theirs["stem/kernel"])


@pytest.mark.parametrize(("model", "fields", "message"), [
    ({"filters": (4, 7)}, {}, r"block_2/conv_1/kernel is \(3, 4, 7\), in the source \(3, 4, 6\).*transfer.reinit"),
    ({"filters": (4, 6, 6)}, {}, "block_3/conv_1/kernel .* is not in the source"),
    ({"filters": (4,)}, {"reinit": ("final*",)}, "block_2/conv_1/kernel of the source has no place here"),
    ({"filters": (4, 7)}, {"reinit": ("block_2", "final*")}, ""),
    ({"filters": (4, 7)}, {"above": "random", "freeze_layers": 2}, ""),
    ({"filters": (4,)}, {"reinit": ("block_2", "final*")}, "")])
def test_an_unexplained_mismatch_is_an_error_and_a_pattern_explains_it(tiny, source, model, fields, message):
    other = settings(dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, **model)), source, **fields)
    if not message:
        assert "block_1/conv_1/kernel" in carried(other, source).params
        return
    with pytest.raises(UserError, match=message):
        carried(other, source)


@pytest.mark.parametrize(("fields", "message"), [
    ({"freeze_layers": 9}, r"this model has 4 layers: stem\* \| block_1 \| block_2 \| final\*"),
    ({"freeze": ("blok_1",)}, "transfer.freeze=blok_1 names no parameter; there are block_1/conv_1/kernel"),
    ({"freeze": ("*",)}, "every parameter is frozen"), ({"above": "below"}, "choose source or random"),
    ({"head": "new"}, "choose random or source"), ({"reinit": ("blok_2",)}, "transfer.reinit=blok_2 names no parameter")])
def test_wrong_wishes_are_named(tiny, source, fields, message):
    with pytest.raises(UsageError, match=message):
        carried(settings(tiny, source, **fields), source)


@pytest.mark.parametrize("fields", [{"above": "random"}, {"head": "source"}, {"reinit": ("head",)}, {"step": "last"}])
def test_what_needs_a_source_is_refused_without_one(tiny, fields):
    with pytest.raises(UsageError, match=f"transfer.{next(iter(fields))} says what to take from another run.*--init-from"):
        Network(dataclasses.replace(tiny, transfer=Transfer(**fields)))


def test_an_interrupted_run_continues_without_its_source(tiny, source, tmp_path):
    shutil.copytree(source.workdir, tmp_path / "source")
    experiment = settings(tiny, Trained(tmp_path / "source"), steps=4, freeze_layers=1)
    assert train(experiment, tmp_path / "whole") == 0
    assert train(experiment, tmp_path / "cut", stop_after=2) == 75
    shutil.rmtree(tmp_path / "source")
    assert train(experiment, tmp_path / "cut") == 0
    assert_same_state(saved_state(tmp_path / "cut"), saved_state(tmp_path / "whole"))


def test_a_source_that_has_changed_is_refused(tiny, source, tmp_path):
    experiment = settings(tiny, source)
    (tmp_path / "config.json").write_text(json.dumps({"source": {"hash": "0" * 16}}))
    with pytest.raises(UserError, match="has another checkpoint than when"):
        transfer.begin(experiment, Network(experiment), {"params": {}, "stats": {}}, tmp_path, [], None, print)


def test_what_the_source_has_heard_goes_with_the_checkpoint(tiny, source, two_corpora, tmp_path, capsys):
    """Trained on another corpus from this source, the checkpoint has heard the source's utterances: TRANSDUCTIVE."""
    data = dataclasses.replace(tiny.data, corpora=(str(two_corpora[1]),), splits=())
    train(settings(dataclasses.replace(tiny, data=data), source, steps=1), tmp_path / "run")
    table = pandas.read_parquet(tmp_path / "run" / "pretrained_on.parquet")
    heard = source.utterances[source.utterances["part"].isin(["train", "dev"])]
    assert set(table.loc[table["part"] == "source", "id"]) == set(heard["id"])
    told = json.loads((tmp_path / "run/config.json").read_text())["source"]
    assert told["hash"] == source.hash and told["step"] == 3 and told["experiment"] == "tiny" and told["synthetic"] is False
    assert Trained(tmp_path / "run").pretrained_on >= set(heard["audio_sha256"])
    capsys.readouterr()
    corpus = tiny.data.corpora[0]
    assert cli.main(["evaluate", str(tmp_path / "run"), "--corpus", corpus, "--split", "train"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/results.jsonl").read_text().splitlines()]
    assert all(row["stamps"] == ["TRANSDUCTIVE"] for row in rows)
    assert f"has heard {len(heard)} of the utterances" in capsys.readouterr().err


def test_the_command_line_says_the_same(tiny, source, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(tiny)))
    words = ["pretrain", str(tmp_path / "config.json"), "--workdir", str(tmp_path / "run"), "--init-from", str(source.workdir),
             "--freeze-layers", "1", "--above", "random", "--stop-after", "0"]
    assert cli.main(words) == 75
    told = json.loads((tmp_path / "run/config.json").read_text())["transfer"]
    assert (told["init_from"], told["freeze_layers"], told["above"]) == (str(source.workdir), 1, "random")
    assert cli.main([*words[:3], str(tmp_path / "other"), "--init-from", str(tmp_path / "none")]) == 1


NAMES = st.text("ab_1", min_size=1, max_size=3)
TREES = st.recursive(st.integers(0, 9).map(np.float32), lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=8)


@given(st.dictionaries(NAMES, TREES, min_size=1, max_size=3), st.data())
def test_split_and_join_are_inverse(tree, data):
    paths = sorted(transfer.flat(tree))
    frozen = set(data.draw(st.lists(st.sampled_from(paths))))
    trained, constant = transfer.split(tree, frozen)
    assert len(jax.tree.leaves(trained)) == len(paths) - len(frozen) and len(jax.tree.leaves(constant)) == len(frozen)
    assert transfer.flat(transfer.join(trained, constant)) == transfer.flat(tree)
    for path in paths:
        assert transfer.matches(path, [path.split("/")[0]]) and transfer.matches(path, ["*"])
        assert not transfer.matches(path, [path + "x"]) and not transfer.matches(path, [])


@pytest.mark.slow
def test_two_processes_start_from_one_source(tiny, source, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(settings(tiny, source, freeze_layers=1))))
    code, errors = finish(start(["pretrain", tmp_path / "config.json", "--workdir", tmp_path / "run", "--stop-after", "0"], processes=2))
    assert code == 75, errors
    params, _ = model_of(tmp_path / "run")
    assert all(np.array_equal(params[path], leaf) for path, leaf in transfer.flat(source.params).items() if path not in HEAD)
    assert (tmp_path / "run" / "pretrained_on.parquet").is_file()
