"""launch/local.py: several processes, one fate. Stub commands stand for ser_jax; JAX is not needed."""

import importlib.util
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).resolve().parent.parent / "launch" / "local.py"
specification = importlib.util.spec_from_file_location("launch_local", LAUNCHER)
local = importlib.util.module_from_spec(specification)
specification.loader.exec_module(local)

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)
print("up", flush=True); time.sleep(60)
"""
SAVES = """
import signal, sys, time
def save(*_):
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save); signal.signal(signal.SIGINT, save)
print("up", flush=True); time.sleep(60)
"""


def run(*programs, grace=0.3):
    """Runs Python programs under the launcher; returns exit code, output, errors."""
    out, err = io.BytesIO(), io.BytesIO()
    commands = [[sys.executable, "-c", textwrap.dedent(program)] for program in programs]
    code = local.run(commands, [dict(os.environ)] * len(commands), grace=grace, out=out, err=err)
    return code, out.getvalue().decode(), err.getvalue().decode()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # a zombie that nobody has waited for yet is not alive
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def assert_gone(pids, seconds=5.0):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]


@pytest.fixture
def launched():
    """start(program, copies) -> (launcher in a process of its own, pids of the stubs)."""
    started = []

    def start(program, copies=2):
        announce = "import os, sys; print('pid', os.getpid(), flush=True)\n"
        script = (
            f"import importlib.util, os, sys\n"
            f"spec = importlib.util.spec_from_file_location('local', {str(LAUNCHER)!r})\n"
            f"local = importlib.util.module_from_spec(spec); spec.loader.exec_module(local)\n"
            f"command = [sys.executable, '-c', {announce + program!r}]\n"
            f"sys.exit(local.run([command] * {copies}, [dict(os.environ)] * {copies}, grace=0.3))\n"
        )
        launcher = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(launcher)
        pids, up = [], 0
        while len(pids) < copies or up < copies:
            line = launcher.stdout.readline()
            assert line, launcher.stderr.read()
            pids += [int(line.split()[-1])] if " pid " in line else []
            up += line.rstrip().endswith("up")
        return launcher, pids

    yield start
    for launcher in started:
        launcher.kill()
        launcher.communicate()


def test_lines_carry_the_process_number_and_keep_their_stream():
    code, out, err = run("print('a'); import sys; print('w', file=sys.stderr)", "print('b', end='')")
    assert code == 0
    assert sorted(out.splitlines()) == ["[0] a", "[1] b"]
    assert err == "[0] w\n"


@pytest.mark.parametrize(
    ("endings", "worst"),
    [(("0", "0"), 0), (("0", "75"), 75), (("75", "3"), 3), (("1", "75", "0"), 1)],
)
def test_exit_code_is_the_worst(endings, worst):
    assert run(*(f"raise SystemExit({ending})" for ending in endings), grace=5)[0] == worst


def test_a_failure_ends_the_others_and_its_code_is_reported_not_theirs():
    start = time.monotonic()
    code, _, err = run("import time; time.sleep(0.4); raise SystemExit(3)", STUBBORN)
    assert code == 3
    assert time.monotonic() - start < 10
    assert "process 0 ended with exit code 3" in err


def test_death_by_signal_counts_as_failure():
    assert run("import os; os.kill(os.getpid(), 9)", "import time; time.sleep(60)")[0] == 128 + 9


def test_a_process_that_has_saved_does_not_hurry_the_others():
    slow = "import time; time.sleep(1.0); print('committed'); raise SystemExit(75)"
    code, out, _ = run("raise SystemExit(75)", slow, grace=0.1)
    assert (code, out) == (75, "[1] committed\n")


def test_workers_of_an_ended_process_are_ended():
    worker = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid)"
    start = time.monotonic()
    code, out, _ = run(worker)
    assert code == 0 and time.monotonic() - start < 10
    assert_gone([int(out.split()[-1])])


def test_a_command_that_cannot_start_leaves_no_other_behind(tmp_path):
    note = tmp_path / "pid"
    first = [sys.executable, "-c", f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"]
    with pytest.raises(FileNotFoundError):
        local.run([first, [str(tmp_path / "absent")]], [dict(os.environ)] * 2, out=io.BytesIO(), err=io.BytesIO())
    if note.exists() and note.read_text():
        assert_gone([int(note.read_text())])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_and_saved_is_the_answer(launched, number):
    launcher, pids = launched(SAVES)
    launcher.send_signal(number)
    out, _ = launcher.communicate(timeout=10)
    assert launcher.returncode == 75
    assert sorted(out.splitlines()) == ["[0] saved", "[1] saved"]
    assert_gone(pids)


def test_the_third_signal_kills(launched):
    launcher, pids = launched(STUBBORN)
    for _ in range(3):
        launcher.send_signal(signal.SIGINT)
        time.sleep(0.15)
    launcher.communicate(timeout=10)
    assert launcher.returncode == 128 + 9
    assert_gone(pids)


def test_nothing_survives_a_launcher_that_is_killed_outright(launched):
    launcher, pids = launched(STUBBORN)
    launcher.kill()
    assert_gone(pids)


def test_a_closed_output_ends_the_run(launched):
    chatty = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05); print('x' * 100, flush=True)"
    launcher, pids = launched(chatty)
    launcher.stdout.close()
    launcher.wait(timeout=10)
    assert launcher.returncode == 128 + 15
    assert_gone(pids)
    launcher.stdout = None


def test_environments_tell_each_process_its_place():
    flags = "--xla_dump_to=/d --xla_force_host_platform_device_count=9"
    base = {"XLA_FLAGS": flags, "PYTHONPATH": "/mine", "HOME": "/h"}
    first, second = local.environments(2, 4, base=base, port=1234)
    assert (first["SER_JAX_PROCESS_ID"], second["SER_JAX_PROCESS_ID"]) == ("0", "1")
    assert first["SER_JAX_COORDINATOR"] == second["SER_JAX_COORDINATOR"] == "127.0.0.1:1234"
    assert first["SER_JAX_NUM_PROCESSES"] == "2"
    assert first["XLA_FLAGS"].split() == ["--xla_dump_to=/d", "--xla_force_host_platform_device_count=4"]
    assert first["PYTHONPATH"].split(os.pathsep) == [str(LAUNCHER.parent.parent), "/mine"]
    assert first["HOME"] == "/h" and base["PYTHONPATH"] == "/mine"


@pytest.mark.parametrize("arguments", [["-n", "2"], ["-n", "2", "--"], ["-n", "0", "--", "demo"], ["--", "demo"]])
def test_wrong_use_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        local.main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_help_has_an_example_that_parses(capsys):
    with pytest.raises(SystemExit) as stop:
        local.main(["--help"])
    assert stop.value.code == 0
    assert local.EXAMPLE.replace(" ", "") in "".join(capsys.readouterr().out.split())
