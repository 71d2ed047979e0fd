"""prepare a corpus: any source to TFDS-readable ArrayRecord shards with one record schema, resumable."""

import collections
import contextlib
import fcntl
import itertools
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from concurrent import futures
from pathlib import Path

from ser_jax.corpora import READERS, takes_option
from ser_jax.corpora import reader as make_reader
from ser_jax.errors import DONE, SAVED, UsageError, UserError
from ser_jax.files import canonical_hash, read_json, write_json
from ser_jax.progress import Progress, format_seconds

EXAMPLE = "ser-jax prepare librispeech --source /data/LibriSpeech --out prepared/librispeech"

STATE = ".prepare"  # folder inside `out` while the work is under way
UTTERANCES_PER_SHARD = 500  # 10 s of speech are about 0.3 MB
MIN_UTTERANCES_PER_SHARD = 50
MAX_DEFAULT_WORKERS = 16
POLL_SECONDS = 0.2


def add_arguments(parser):
    parser.add_argument("corpus", metavar="CORPUS", help=f"one of: {', '.join(READERS)} (see `ser-jax corpora`)")
    parser.add_argument("--source", type=Path, help="folder or file of the corpus")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; continues an interrupted run")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="option of the corpus")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: the cores, at most 16)")
    parser.add_argument("--max-rejects", type=float, default=0.01, metavar="SHARE",
                        help="largest share of utterances that may be refused (default 0.01)")
    parser.add_argument("--shards", type=int, default=None, help="number of shards (default: by the utterances)")
    parser.add_argument("--overwrite", action="store_true", help="replace another prepared corpus in --out")


def run(args):
    with _terminate_as_interrupt():
        try:
            options = _options(args.option)
            if takes_option(args.corpus, "scratch"):  # archives are unpacked beside the output
                out = args.out.absolute()
                options.setdefault("scratch", str(out.with_name(f"{out.name}.unpacked")))
            reader = make_reader(args.corpus, _source(args.source), options)
            info = prepare(reader, args.out, args.source, workers=args.workers, max_rejects=args.max_rejects,
                           shards=args.shards, overwrite=args.overwrite)
        except KeyboardInterrupt:
            print("interrupted: what is written is kept; run the same command again to continue", file=sys.stderr)
            return SAVED
    print(summary(info, args.out))
    return DONE


def prepare(reader, out, source=None, *, workers=None, max_rejects=0.01, shards=None, overwrite=False):
    """Writes a prepared corpus; continues an interrupted run and returns at once when the corpus is there already.

    The records, their order and the fingerprint depend neither on `workers` nor on `shards` nor on the machine. May be
    killed at any moment: files are whole or absent, and `prepared.json` is written last.

    Args:
      reader: schema.Reader.
      out: folder to write.
      source: where the corpus came from, noted in `prepared.json`.
      workers: processes; 1 = this one. None = the available cores.
      max_rejects: largest share of utterances that may be refused.
      shards: number of shards; None = by the number of utterances.
      overwrite: replace a prepared corpus of another plan.

    Returns:
      The content of `prepared.json`.

    Raises:
      UserError: too many rejects, full disk, another corpus in `out`, a dead worker.
    """
    out = Path(out)
    workers = _default_workers() if workers is None else workers
    if workers < 1 or not 0 <= max_rejects <= 1 or (shards is not None and shards < 1):
        raise UsageError("--workers and --shards are at least 1, --max-rejects is a share from 0 to 1")
    from ser_jax.corpora import shards as shard_files  # imports numpy, soundfile
    from ser_jax.corpora.join import join

    units = _ordered(reader, shard_files.unit_hash)
    facts = {"format": shard_files.FORMAT, "name": reader.name, "language": reader.language, "licence": reader.licence,
             "synthetic": reader.synthetic, "options": reader.options()}
    plan = canonical_hash([facts, _stamps(units)])
    if (out / "prepared.json").exists():
        info = read_json(out / "prepared.json")
        if info.get("plan") == plan:
            _remove_state(out)
            print(f"{out} is already prepared", file=sys.stderr)
            return info
        if not overwrite:
            raise UserError(f"{out} holds another prepared corpus ({info.get('name')}; other files or options): "
                            "choose another --out, or --overwrite")
    with _locked(out, overwrite), shard_files.full_disk_is_user_error(out):
        shards = _number_of_shards(out, units, workers, shards)
        jobs = _jobs(out, reader.name, facts, _split(units, shards))
        todo = _keep_finished(out, jobs)
        done = sum(max(unit.count, 1) for job in jobs if job not in todo for unit in job.units)
        total = sum(max(unit.count, 1) for unit in units)
        with Progress(total, f"prepare {reader.name}", done=done) as progress:
            if workers == 1 or len(todo) <= 1:
                for job in todo:
                    job.write(reader, progress.update)
            else:
                _run_pool(reader, todo, min(workers, len(todo)), progress.update)
        info = join(reader, out, source, facts, plan, jobs, max_rejects)
    _remove_state(out)
    return info


class Job(collections.namedtuple("Job", "path sidecar made_from units")):
    """A shard to write."""

    def write(self, reader, advance):
        from ser_jax.corpora import shards as shard_files

        shard_files.write_shard(reader, self.units, self.path, self.sidecar, self.made_from, advance)

    def content(self):
        """The sidecar when shard and sidecar are whole and made from the same; else None."""
        try:
            content = read_json(self.sidecar)
            size = self.path.stat().st_size
        except (FileNotFoundError, ValueError):
            return None
        return content if content["made_from"] == self.made_from and content["bytes"] == size else None


def _source(source):
    if source is None:
        return None
    source = source.expanduser()
    if not source.exists():
        raise UserError(f"--source {source}: no such file or folder")
    return source


def _options(pairs):
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--option {pair}: write KEY=VALUE")
        options[key.replace("-", "_")] = value
    return options


def _default_workers():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_DEFAULT_WORKERS)


def _ordered(reader, unit_hash):
    units = sorted(reader.units(), key=lambda unit: unit_hash(unit.key))
    if not units:
        raise UserError(f"{reader.name}: no utterances in the source")
    for one, other in itertools.pairwise(units):
        if one.key == other.key:
            raise UserError(f"{reader.name}: two sources with the id {one.key!r}: {one.path} and {other.path}")
    return units


def _stamps(units):
    return [[unit.key, unit.path, unit.count, unit.stamp] for unit in units]


def _number_of_shards(out, units, workers, asked):
    """The number of shards, kept over restarts unless another one is asked for."""
    state = out / STATE / "plan.json"
    if asked is None and state.exists():
        asked = read_json(state)["shards"]
    if asked is None:
        count = sum(max(unit.count, 1) for unit in units)
        asked = max(math.ceil(count / UTTERANCES_PER_SHARD),
                    min(4 * workers, count // MIN_UTTERANCES_PER_SHARD), 1)
    shards = min(asked, len(units))
    write_json(state, {"shards": shards})
    return shards


def _split(units, shards):
    """Cuts the hash-ordered units into `shards` runs of about equal numbers of utterances, none of them empty."""
    total, seen = sum(max(unit.count, 1) for unit in units), 0
    parts = [[] for _ in range(shards)]
    number = 0
    for position, unit in enumerate(units):
        wanted = min(seen * shards // total, shards - 1)
        left = len(units) - position
        if parts[number] and number < shards - 1 and (wanted > number or left <= shards - 1 - number):
            number += 1
        parts[number].append(unit)
        seen += max(unit.count, 1)
    return parts


def _jobs(out, name, facts, parts):
    from ser_jax.corpora.shards import shard_name

    jobs = []
    for number, units in enumerate(parts):
        made_from = canonical_hash([facts, len(parts), _stamps(units)])
        path = out / shard_name(name, number, len(parts))
        jobs.append(Job(path, out / STATE / f"{path.name}.json", made_from, units))
    return jobs


def _keep_finished(out, jobs):
    """Jobs that are still to do. Removes what earlier runs left and is of no use."""
    todo = [job for job in jobs if job.content() is None]
    kept = {path for job in jobs if job not in todo for path in (job.path, job.sidecar)}
    sidecars = set((out / STATE).glob("*.array_record-*.json"))
    temporary = [*out.glob(".*.tmp"), *(out / STATE).glob(".*.tmp")]
    stale = [path for path in (*out.glob("*.array_record-*"), *temporary, *sidecars) if path not in kept]
    for path in stale:
        path.unlink(missing_ok=True)
    if len(todo) < len(jobs):
        print(f"continuing in {out}: {len(jobs) - len(todo)} of {len(jobs)} shards are there", file=sys.stderr)
    discarded = len(sidecars & set(stale))
    if discarded:
        print(f"{discarded} earlier shards discarded: the source, the options or the shards changed", file=sys.stderr)
    return todo


@contextlib.contextmanager
def _locked(out, overwrite):
    """Makes `out` ready for writing and keeps a second run away from it; the lock goes with the process."""
    state = out / STATE
    with _plain_os_errors(out):
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is not a folder: choose another --out")
        prepared = (out / "prepared.json").exists()
        if out.exists() and any(out.iterdir()) and not state.exists() and not prepared:
            raise UserError(f"{out} is not empty and not a prepared corpus: choose another --out")
        state.mkdir(parents=True, exist_ok=True)
        lock = open(state / "lock", "w")  # noqa: SIM115 (held until the end of the block)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{out}: another prepare is writing here") from None
        except OSError:
            print(f"{out}: no file locks on this file system; do not run two prepares here", file=sys.stderr)
        if (out / "prepared.json").exists() != prepared:
            raise UserError(f"{out}: another prepare has just finished here; run the same command again")
        if prepared and overwrite:
            for name in ("prepared.json", "index.parquet", "rejects.csv", "features.json", "dataset_info.json"):
                (out / name).unlink(missing_ok=True)
        yield
    finally:
        lock.close()


@contextlib.contextmanager
def _plain_os_errors(out):
    try:
        yield
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def _terminate_as_interrupt():
    """SIGTERM (a scheduler's pre-emption) ends the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_worker = {}  # of a worker process: reader, stop, counts


def _start_worker(reader, stop, counts):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _worker.update(reader=reader, stop=stop, counts=counts)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _write_in_worker(number, job):
    from ser_jax.corpora.shards import Stopped

    def advance(count):
        _worker["counts"][number] += count
        if _worker["stop"].value:
            raise Stopped

    job.write(_worker["reader"], advance)


def _run_pool(reader, jobs, workers, advance):
    context = multiprocessing.get_context("spawn")
    # Without locks: a worker that is killed would keep one for ever. Every job counts in its own cell.
    stop, counts, seen = context.RawValue("b", 0), context.RawArray("q", len(jobs)), 0
    with futures.ProcessPoolExecutor(workers, context, _start_worker, (reader, stop, counts)) as pool:
        try:
            pending = {pool.submit(_write_in_worker, number, job) for number, job in enumerate(jobs)}
            while pending:
                done, pending = futures.wait(pending, POLL_SECONDS, futures.FIRST_EXCEPTION)
                for future in done:
                    future.result()
                now = sum(counts)
                advance(now - seen)
                seen = now
        except futures.process.BrokenProcessPool:
            raise UserError("a worker process died (killed, or out of memory): run the same command again to continue, "
                            "with fewer --workers if it happens again") from None
        finally:
            stop.value = 1
            pool.shutdown(wait=True, cancel_futures=True)


def _remove_state(out):
    shutil.rmtree(out / STATE, ignore_errors=True)


def summary(info, out):
    """The lines that the verb ends with."""
    genders = ", ".join(f"{count} {gender or 'unknown'}" for gender, count in info["genders"].items())
    counts = info["counts"]
    lines = [f"corpus       {info['name']}", f"utterances   {counts['out']} of {counts['in']}",
             f"duration     {format_seconds(info['seconds'])} ({info['seconds'] / 3600:.2f} h)",
             f"speakers     {info['speakers']}", f"gender       {genders}",
             f"rejects      {counts['rejects']}"]
    reasons = sorted(info["reject_reasons"].items(), key=lambda item: -item[1])
    lines += [f"  {count:9d}  {reason}" for reason, count in reasons]
    return "\n".join([*lines, f"fingerprint  {info['fingerprint']}", f"path         {out}"])
