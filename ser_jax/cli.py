"""The `ser-jax` command: one verb per step of the chain. Verbs are imported when they are called, so `--help` is quick."""

import argparse
import errno
import importlib
import os
import sys

from ser_jax import __version__, memory
from ser_jax.errors import FAILED, WRONG_USE, UserError, suggestion

VERBS = {
    "prepare": ("ser_jax.corpora.prepare", "a corpus as you have it -> a prepared corpus (one record schema, 16 kHz, checked)"),
    "align": ("ser_jax.align", "labels of frames: phone states or voice activity, for tasks on frames"),
    "pretrain": ("ser_jax.train", "prepared corpora -> a trained encoder; continues an interrupted run"),
    "evaluate": ("ser_jax.evaluate", "a checkpoint on its own task, one row per test part"),
    "export": ("ser_jax.export.run", "a frozen checkpoint + a prepared corpus -> a features file"),
    "probe": ("ser_jax.probe", "features -> an honest score under a protocol, with interval and stamps"),
    "report": ("ser_jax.report.page", "results -> one self-contained HTML page, CSV and PNG"),
    "reproduce": ("ser_jax.reproduce", "a paper's table: the whole chain, the paper's figures beside ours"),
    "transcribe": ("ser_jax.transcribe", "audio files -> text, by a recogniser"),
    "corpora": ("ser_jax.corpora.catalogue", "the corpora that are known, what each needs, its licence"),
    "demo": ("ser_jax.demo", "the whole chain on the embedded corpus, in a few minutes"),
}
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR,
            errno.EEXIST)  # by the user: a full disk, a folder that cannot be written, a file where a folder should be
JOINS_OTHERS = ("pretrain", "evaluate", "export")  # verbs that run on several processes under jax.distributed


def main(argv=None):
    """Runs the command and returns its exit code: 0 done, 1 failed, 2 wrong use, 75 saved: run me again."""
    if argv is None:  # a process of our own, before JAX starts its threads
        memory.keep_freed()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # here, not when the interpreter ends, where a closed pipe can no longer be caught
    except BrokenPipeError:  # the reader has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(argv):
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else WRONG_USE
    if argv[0] == "--version":
        print(f"ser-jax {__version__}")
        return 0
    verb = argv[0]
    if verb not in VERBS:
        print(f"ser-jax: no verb {verb!r}{suggestion(verb, VERBS)}; see ser-jax --help", file=sys.stderr)
        return WRONG_USE
    module = importlib.import_module(VERBS[verb][0])
    parser = argparse.ArgumentParser(prog=f"ser-jax {verb}", description=module.__doc__, epilog=f"example: {module.EXAMPLE}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    debug = os.environ.get("SER_JAX_DEBUG")
    try:
        if verb in JOINS_OTHERS:
            from ser_jax.sharding import initialize_from_environment
            initialize_from_environment()
        return module.run(args)
    except UserError as error:
        if debug:
            raise
        print(f"ser-jax {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if debug or error.errno not in MENDABLE:
            raise
        print(f"ser-jax {verb}: {error.strerror}: {error.filename or 'the output folder'}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"ser-jax {verb}: interrupted", file=sys.stderr)
        return 130


def _overview():
    lines = ["usage: ser-jax VERB ...    (ser-jax VERB --help shows its options and an example)", "",
             "Speech-emotion recognition by transfer learning, in JAX.", ""]
    lines += [f"  {verb:10} {what}" for verb, (_, what) in VERBS.items()]
    lines += ["", "example: ser-jax demo --out demo",
              "exit codes: 0 done, 1 failed, 2 wrong use, 75 saved after an interruption: run the same command again"]
    return "\n".join(lines)
