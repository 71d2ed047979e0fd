"""The command itself: quick help, exit codes, one line per error."""

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ser_jax import cli, errors

REPOSITORY = Path(__file__).resolve().parent.parent
HEAVY = ("jax", "jaxlib", "flax", "tensorflow", "tensorflow_datasets", "torch", "sklearn", "pandas", "pyarrow", "scipy",
         "matplotlib", "librosa", "orbax", "grain", "numpy", "soundfile")


def _python(program, *arguments, **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, **kwargs)


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["--versoin"], ["exprot"], []])
def test_help_imports_nothing_heavy(argv):
    done = _python(f"import sys; from ser_jax.cli import main; main({argv!r}); print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "ser_jax.cli" in loaded and not loaded & set(HEAVY)


@pytest.fixture(scope="module")
def helps():
    """What every verb prints for --help, and the modules that were loaded for it; one process for all of them."""
    done = _python(
        "import contextlib, io, json, sys\n"
        "from ser_jax.cli import VERBS, main\n"
        "found = {}\n"
        "for verb in VERBS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        try: main([verb, '--help'])\n"
        "        except SystemExit as stop: code = stop.code\n"
        "    found[verb] = [code, out.getvalue(), sorted(sys.modules)]\n"
        "print(json.dumps(found))"
    )
    assert done.returncode == 0, done.stderr
    import json
    return json.loads(done.stdout)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself_and_shows_an_example_that_parses(helps, verb):
    code, text, loaded = helps[verb]
    assert code == 0 and text.startswith(f"usage: ser-jax {verb}")
    module = importlib.import_module(cli.VERBS[verb][0])
    assert f"example: {module.EXAMPLE}" in text
    assert module.__doc__.splitlines()[0] in text
    assert not set(loaded) & (set(HEAVY) - {"numpy", "soundfile", "tqdm"})
    words = shlex.split(module.EXAMPLE)
    assert words[:2] == ["ser-jax", verb]
    import argparse
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    parser.parse_args(words[2:])
    assert all(action.help for action in parser._actions if action.dest not in ("batch_size",))


def test_the_overview_names_every_verb_and_the_exit_codes(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in cli.VERBS:
        assert f"\n  {verb} " in out
    assert "example: ser-jax " in out and "75 saved" in out
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["exprot"], "no verb 'exprot' (did you mean 'export'?)"),
        (["xyzzy"], "no verb 'xyzzy'; see ser-jax --help"),
        (["export", "--workdir", "w", "--corpus", "c", "--out", "o.csv", "--poling", "max"], "--poling"),
        (["export"], "--workdir"),
        (["evaluate", "w", "--batch-size", "many"], "--batch-size"),
    ],
)
def test_wrong_use_is_exit_2(argv, message, capsys):
    try:
        code = cli.main(argv)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2 and message in captured.err and captured.out == ""


class Verb:
    """A verb that fails as it is told."""

    EXAMPLE = "ser-jax verb"
    __doc__ = "A verb."

    def __init__(self, error=None, code=0):
        self.error, self.code = error, code

    def add_arguments(self, parser):
        parser.add_argument("config", nargs="?")

    def run(self, args):
        if self.error:
            raise self.error
        return self.code


@pytest.fixture
def verb(monkeypatch):
    def install(**kwargs):
        monkeypatch.setitem(sys.modules, "a_verb", Verb(**kwargs))
        monkeypatch.setitem(cli.VERBS, "verb", ("a_verb", "a verb"))

    monkeypatch.delenv("SER_JAX_DEBUG", raising=False)
    return install


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.UserError("f.csv: no rows; make some"), 1, "f.csv: no rows; make some"),
        (errors.UsageError("--out x: end it in .csv"), 2, "--out x: end it in .csv"),
        (PermissionError(13, "Permission denied", "/out"), 1, "Permission denied: /out"),
        (OSError(28, "No space left on device"), 1, "No space left on device: the output folder"),
        (FileExistsError(17, "File exists", "runs/a"), 1, "File exists: runs/a"),
        (NotADirectoryError(20, "Not a directory", "runs/a/b"), 1, "Not a directory: runs/a/b"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_the_user_can_mend_is_one_line(verb, error, code, message, capsys):
    verb(error=error)
    assert cli.main(["verb"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"ser-jax verb: {message}\n")


def test_what_is_our_mistake_keeps_its_traceback(verb, monkeypatch):
    verb(error=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["verb"])
    verb(error=FileNotFoundError(2, "No such file", "x"))
    with pytest.raises(FileNotFoundError):
        cli.main(["verb"])
    monkeypatch.setenv("SER_JAX_DEBUG", "1")
    verb(error=errors.UserError("x"))
    with pytest.raises(errors.UserError):
        cli.main(["verb"])


def test_the_exit_code_of_a_verb_is_passed_on(verb):
    verb(code=errors.SAVED)
    assert cli.main(["verb"]) == 75


def test_a_missing_file_is_one_line_and_exit_1(tmp_path, capsys):
    assert cli.main(["probe", "--features", str(tmp_path / "no.parquet"), "--protocol", "loso"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ser-jax probe: ") and "no.parquet" in error and error.count("\n") == 1


def test_the_config_is_positional_and_a_wrong_one_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert cli.main(["pretrain", "configs/pretrain/sample_cnn_librispech.py", "--workdir", str(tmp_path / "w")]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'configs/pretrain/sample_cnn_librispeech.py'?" in error and error.count("\n") == 1
    config = "configs/pretrain/sample_cnn_librispeech.py"
    assert cli.main(["pretrain", config, "--workdir", str(tmp_path / "w"), "--set", "train.stesp=3"]) == 2
    assert "did you mean 'steps'?" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("argv", [["--help"], ["export", "--help"], ["corpora"]])
def test_a_reader_that_has_gone_is_no_error_of_ours(argv):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "ser_jax", *argv], stdout=write, stderr=subprocess.PIPE, text=True,
                          cwd=REPOSITORY)
    os.close(write)
    assert done.stderr == "" and done.returncode in (0, 1)
