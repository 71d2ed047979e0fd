"""Jobs: chains of verbs that wait for each other, are not repeated, and run several at a time."""

import os

import pytest

from ser_jax import cli, jobs


@pytest.fixture
def told(monkeypatch):
    """The verbs that ran in this process; one that says "fail" ends with 7."""
    lines = []
    monkeypatch.setattr(cli, "main", lambda argv: lines.append(" ".join(argv)) or (7 if "fail" in argv else 0))
    return lines


def job(folder, name, *verbs, after=(), depends=None):
    return jobs.Job(name, verbs, folder / f"{name}.json", depends, tuple(after))


def test_what_is_done_is_not_repeated(tmp_path, told):
    def chain(depends):
        first = job(tmp_path, "first", "a 1", "b 'two words'", depends=depends)
        return [first, job(tmp_path, "second", "c", after=[first])]

    jobs.run_all(chain(1), 1, tmp_path)
    assert told == ["a 1", "b two words", "c"]
    jobs.run_all(chain(1), 1, tmp_path)
    assert len(told) == 3
    jobs.run_all(chain(2), 1, tmp_path)  # what the first depends on has changed, so has what comes after it
    assert told[3:] == told[:3]


def test_a_job_that_fails_ends_the_chain_and_is_run_again(tmp_path, told):
    first = job(tmp_path, "first", "a", "b fail")
    with pytest.raises(jobs.Stopped, match="ended with 7; mend that; run the same command again") as error:
        jobs.run_all([first, job(tmp_path, "second", "c", after=[first])], 1, tmp_path)
    assert error.value.exit_code == 7 and told == ["a", "b fail"] and not first.done


def test_several_at_a_time_keep_their_order_and_write_logs(tmp_path, capsys):
    first = job(tmp_path, "first", "--version")
    others = [job(tmp_path, f"other/{i}".replace("/", "_"), "--version", after=[first]) for i in range(2)]
    jobs.run_all([first, *others], 2, tmp_path / "logs")
    assert all(one.done for one in (first, *others))
    said = capsys.readouterr().out
    assert said.index("1 of 3 runs, first is done") < said.index("3 of 3 runs")
    log = (tmp_path / "logs" / "first.log").read_text()
    assert "$ ser-jax --version\nser-jax " in log
    assert max(one.mark.stat().st_mtime_ns for one in others) > first.mark.stat().st_mtime_ns


def test_one_that_fails_starts_no_more(tmp_path):
    first = job(tmp_path, "first", "no_such_verb")
    with pytest.raises(jobs.Stopped, match=r"first \(its log: .*first.log\) ended with 2") as error:
        jobs.run_all([first, job(tmp_path, "second", "--version", after=[first])], 2, tmp_path)
    assert error.value.exit_code == 2 and not (tmp_path / "second.log").exists()


def test_each_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    seen = []

    class Process:
        def __init__(self, command, env, **_):
            seen.append(env["CUDA_VISIBLE_DEVICES"])

        def wait(self):
            return 0

    monkeypatch.setattr(jobs.subprocess, "Popen", Process)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(jobs.concurrent.futures, "ThreadPoolExecutor", _Eager)
    jobs.run_all([job(tmp_path, str(i), "--version") for i in range(2)], 2, tmp_path)
    assert sorted(seen) == ["3", "5"]


class _Eager:
    """An executor that runs at once: every slot is asked for before one is given back."""

    def __init__(self, count):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def submit(self, work, *arguments):
        future = jobs.concurrent.futures.Future()
        future.set_result(work(*arguments))
        return future


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such call on this system")
def test_each_has_its_share_of_the_cores(tmp_path, monkeypatch):
    pinned, cores = [], sorted(os.sched_getaffinity(0))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(jobs.os, "sched_setaffinity", lambda pid, share: pinned.append(tuple(share)))
    jobs.run_all([job(tmp_path, str(i), "--version") for i in range(2)], 2, tmp_path)
    assert len(pinned) == 2 and set().union(*pinned) <= set(cores)
    assert len(cores) < 2 or not set(pinned[0]) & set(pinned[1])
