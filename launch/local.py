"""Starts one ser_jax command as several processes on this machine, joined by jax.distributed over gloo on the CPU.

This rehearses a multi-host run before any cluster is paid for: the same code, the same sharding, the same checkpoints.
It is not the way to use several accelerators of one machine: one plain `python -m ser_jax ...` drives them all.

Only the standard library is imported, so the launcher starts at once and holds no JAX state of its own.
"""

import argparse
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

EXAMPLE = "python launch/local.py -n 2 --devices-per-process 4 -- pretrain configs/debug.py --workdir work/debug"
SAVED = 75  # state is saved, run me again (EX_TEMPFAIL), as in ser_jax.errors
GRACE_SECONDS = 10.0
POLL_SECONDS = 0.05
SIGNALS_BEFORE_KILL = 3

# Outlives a launcher that was killed outright (SIGKILL, out of memory): its stdin then ends, and it stops what is left.
# Lines on stdin: "+pid" = watch this process group, "-pid" = it has ended.
GUARD = """
import os, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
left = set()
for line in sys.stdin:
    (left.add if line[0] == "+" else left.discard)(int(line[1:]))
def send(kill, number):
    for pid in sorted(left):
        try:
            kill(pid, number)
        except (ProcessLookupError, PermissionError):
            left.discard(pid)
send(os.kill, signal.SIGTERM)
end = time.monotonic() + float(sys.argv[1])
while left and time.monotonic() < end:
    time.sleep(0.1)
    send(os.killpg, 0)
send(os.killpg, signal.SIGKILL)
"""


class _Guard:
    """A process that stops the children if this one dies without a chance to do so."""

    def __init__(self, grace):
        self._process = subprocess.Popen(
            [sys.executable, "-c", GUARD, str(grace)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def tell(self, line):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def free_port():
    """A port of 127.0.0.1 that nothing listens on at the moment of asking."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environments(processes, devices_per_process, base=None, port=None):
    """The environment of each process of a run.

    Args:
      processes: number of processes, K.
      devices_per_process: simulated CPU devices that each process drives.
      base: environment to start from; default os.environ.
      port: port of the coordinator; default a free one.

    Returns:
      A list of K dicts. The command line of ser_jax reads the coordinator, K and the process's number from SER_JAX_*.
    """
    base = dict(os.environ if base is None else base)
    port = free_port() if port is None else port
    repository = str(Path(__file__).resolve().parent.parent)
    # A count left in the environment by the user's own trials must not win over the option.
    flags = [flag for flag in base.get("XLA_FLAGS", "").split() if "xla_force_host_platform_device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={devices_per_process}")
    shared = {
        **base,
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": " ".join(flags),
        "PYTHONPATH": os.pathsep.join(filter(None, [repository, base.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",  # a line appears when it is written, so that the order of lines means something
        "SER_JAX_COORDINATOR": f"127.0.0.1:{port}",
        "SER_JAX_NUM_PROCESSES": str(processes),
    }
    return [{**shared, "SER_JAX_PROCESS_ID": str(k)} for k in range(processes)]


def run(commands, environments, grace=GRACE_SECONDS, out=None, err=None):
    """Runs the commands side by side until all have ended; leaves no process behind.

    Each output line is prefixed by "[k] ". SIGTERM and SIGINT (and a lost terminal, as SIGTERM) are passed on to every
    process, which may take its time to save; the third signal kills. Once a process has failed, the others get `grace`
    seconds to end by themselves, then SIGTERM, then after `grace` more seconds SIGKILL. Exit code 75 is no failure: the
    others may still be committing the same checkpoint. Must be called from the main thread (it handles signals).

    Args:
      commands: one argument list per process.
      environments: one environment dict per process.
      grace: seconds.
      out, err: binary files for the output and the errors of the processes; default this process's own.

    Returns:
      The worst exit code: that of the first process to fail (128 + signal number if a signal ended it), else 75 if any
      process ended with 75 (saved after a pre-emption), else 0.
    """
    streams = {"out": out or sys.stdout.buffer, "err": err or sys.stderr.buffer}
    closed = []
    received, lock, readers, processes = queue.SimpleQueue(), threading.Lock(), [], []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: received.put(number)) for number in numbers}
    guard = None
    try:
        guard = _Guard(grace)
        for k, (command, environment) in enumerate(zip(commands, environments, strict=True)):
            # A session of its own: Ctrl-C reaches the process once, through us, and its workers not at all.
            process = subprocess.Popen(
                command,
                env=environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            processes.append(process)
            guard.tell(f"+{process.pid}")
            for pipe, name in ((process.stdout, "out"), (process.stderr, "err")):
                arguments = (pipe, streams[name], f"[{k}] ".encode(), lock, closed, received)
                readers.append(threading.Thread(target=_copy_lines, args=arguments, daemon=True))
                readers[-1].start()
        codes = _wait(processes, received, grace, guard, lambda text: _say(streams["err"], lock, text))
    finally:
        for process in processes:
            _kill_group(process)
            process.wait()
        for reader in readers:
            reader.join(timeout=2.0)
        if guard is not None:
            for process in processes:
                guard.tell(f"-{process.pid}")
            guard.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    failures = [code for code in codes if code not in (0, SAVED)]
    return failures[0] if failures else max(codes, default=0)


def _wait(processes, received, grace, guard, say):
    """Waits for all processes; returns their exit codes in the order in which they ended."""
    running, codes, signals = dict(enumerate(processes)), [], 0
    terminate_at = kill_at = None
    while running:
        try:
            number = received.get(timeout=POLL_SECONDS)
            signals += 1
            number = signal.SIGTERM if number == signal.SIGHUP else number
            say(f"{signal.Signals(number).name} received, passed on to {len(running)} processes")
            for process in running.values():
                process.kill() if signals >= SIGNALS_BEFORE_KILL else process.send_signal(number)
        except queue.Empty:
            pass
        now = time.monotonic()
        for k, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[k]
            _kill_group(process)
            guard.tell(f"-{process.pid}")
            codes.append(process.returncode if process.returncode >= 0 else 128 - process.returncode)
            if codes[-1] not in (0, SAVED) and running and terminate_at is None:
                say(f"process {k} ended with exit code {codes[-1]}; the others have {grace:g} s to end")
                terminate_at, kill_at = now + grace, now + 2 * grace
        if terminate_at is not None and now >= terminate_at:
            for process in running.values():
                process.terminate()
            terminate_at = float("inf")
        if kill_at is not None and now >= kill_at:
            for process in running.values():
                process.kill()
    return codes


def _kill_group(process):
    """Ends a process and whatever it has started in its session (data workers)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _copy_lines(pipe, stream, prefix, lock, closed, received):
    with pipe:
        for line in pipe:
            with lock:
                if stream in closed:
                    continue  # keep draining: a process must not block on a pipe that nobody reads
                try:
                    stream.write(prefix + line.rstrip(b"\r\n") + b"\n")
                    stream.flush()
                except (OSError, ValueError):  # our own reader has gone, as in `| head`
                    closed.append(stream)
                    received.put(signal.SIGTERM)


def _say(stream, lock, text):
    with lock, contextlib.suppress(OSError, ValueError):
        stream.write(f"[launch] {text}\n".encode())
        stream.flush()


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python launch/local.py",
        usage="%(prog)s -n K [--devices-per-process D] -- VERB ...",
        description="Starts `python -m ser_jax VERB ...` as K processes on the CPUs of this machine under "
        "jax.distributed, to rehearse a multi-host run. Exit code: the worst of the processes; 75 if they saved.",
        epilog=f"Example: {EXAMPLE}",
    )
    parser.add_argument("-n", "--processes", type=int, required=True, metavar="K", help="number of processes")
    parser.add_argument(
        "--devices-per-process", type=int, default=1, metavar="D", help="simulated CPU devices of each (default 1)"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help="time the others get after one has failed, before SIGTERM and again before SIGKILL (default 10)",
    )
    split = argv.index("--") if "--" in argv else len(argv)
    args, verb = parser.parse_args(argv[:split]), argv[split + 1 :]
    if args.processes < 1 or args.devices_per_process < 1 or args.grace < 0:
        parser.error("-n and --devices-per-process must be at least 1, --grace at least 0")
    if not verb:
        parser.error("nothing to start: put the verb and its options after --")
    command = [sys.executable, "-m", "ser_jax", *verb]
    return run([command] * args.processes, environments(args.processes, args.devices_per_process), grace=args.grace)


if __name__ == "__main__":
    sys.exit(main())
