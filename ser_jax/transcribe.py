"""Write down what is said in audio files, with a checkpoint of a CTC recogniser: one line PATH <tab> TEXT per file.

Lines come in the order of the files, each as soon as it and those before it are ready. Any format that libsndfile
reads, at any sample rate. A whole file is one utterance, however long: cut long recordings beforehand, as the
recogniser has heard sentences. A file that cannot be transcribed is named on stderr, the others are done all the same,
and the exit code is 1.
"""

import itertools
import math
import sys
from pathlib import Path

from ser_jax.errors import DONE, FAILED, UsageError

EXAMPLE = "ser-jax transcribe interview/*.wav --workdir runs/wavenet_librispeech --lm prepared/librispeech"
WINDOW_BATCHES = 8  # so many batches of files are sorted by length, to pad little


def add_arguments(parser):
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio file")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of a pretraining run with task ctc")
    parser.add_argument("--step", default="best", help="best (default), last, or a number of steps")
    parser.add_argument("--beam", type=int, default=100, metavar="WIDTH",
                        help="width of the prefix beam search (default 100); 0 = greedy: the best symbol of each frame")
    parser.add_argument("--lm", type=Path, default=None, metavar="TEXT.txt|CORPUS",
                        help="text of a character language model for the beam search: a file with a sentence per line, "
                             "or a prepared corpus (its texts; of one that the checkpoint was trained on, those of the "
                             "training part alone)")
    parser.add_argument("--lm-order", type=int, default=None, metavar="N",
                        help="longest n-gram of the model (default 6; less for little text)")
    parser.add_argument("--lm-weight", type=float, default=None, metavar="W",
                        help="of the model's log-probability (default 0.5)")
    parser.add_argument("--length-bonus", type=float, default=None, metavar="B",
                        help="per character, as the model favours short texts (default 1)")
    parser.add_argument("--batch-size", type=int, default=8, help="files that the network hears at a time (default 8)")
    parser.add_argument("--jobs", type=int, default=1, help="processes of the beam search (default 1: this one)")


def run(args):
    from ser_jax import sharding
    from ser_jax.checkpoint import Trained
    from ser_jax.tasks.ctc import CTCConfig

    _check(args)
    sharding.use_compilation_cache()
    trained = Trained(args.workdir, args.step)
    if not isinstance(trained.experiment.task, CTCConfig):
        raise UsageError(f"--workdir {args.workdir}: {trained.experiment.name} was not trained to write text; name a "
                         "run whose task is ctc")
    options = _decoder(args, trained)
    failed = 0
    heard = _spelt(recognised(trained, args.files, args.batch_size), options, args.jobs)
    for path, text, reason in heard:
        if reason:
            failed += 1
            print(f"ser-jax transcribe: {_printable(path)}: {reason}", file=sys.stderr)
        else:
            print(f"{_printable(path)}\t{text}", flush=True)
    return FAILED if failed else DONE


def _check(args):
    for option, least in (("batch_size", 1), ("jobs", 1), ("beam", 0)):
        if getattr(args, option) < least:
            raise UsageError(f"--{option.replace('_', '-')} {getattr(args, option)}: must be at least {least}")
    if args.lm and not args.beam:
        raise UsageError("--lm needs the beam search; leave --beam 0 out")
    for option in ("lm_order", "lm_weight", "length_bonus"):
        if getattr(args, option) is not None and args.lm is None:
            raise UsageError(f"--{option.replace('_', '-')} is for the language model; name its text with --lm")
    if args.lm_weight is not None and not 0 <= args.lm_weight < math.inf:
        raise UsageError(f"--lm-weight {args.lm_weight:g}: must be 0 or more")
    if args.length_bonus is not None and not math.isfinite(args.length_bonus):
        raise UsageError(f"--length-bonus {args.length_bonus:g}: give a number")


def _decoder(args, trained):
    """Keyword arguments of `decoding.beam_search`, or None for the best path."""
    from ser_jax.tasks import decoding, language_model

    if not args.beam:
        return None
    options = {"width": args.beam}
    if args.lm:
        order = language_model.ORDER if args.lm_order is None else args.lm_order
        if not 1 <= order <= language_model.MAX_ORDER:
            raise UsageError(f"--lm-order {order}: must be 1 to {language_model.MAX_ORDER}")
        model = language_model.CharacterModel(language_model.read_texts(args.lm, trained), order)
        print(f"language model: {args.lm}, {model.texts} texts, {model.characters} characters, order {order}",
              file=sys.stderr)
        options |= {"language_model": model,
                    "lm_weight": decoding.LM_WEIGHT if args.lm_weight is None else args.lm_weight,
                    "length_bonus": decoding.LENGTH_BONUS if args.length_bonus is None else args.length_bonus}
    return options


def recognised(trained, paths, batch_size=8):
    """Applies the recogniser to audio files.

    Args:
      trained: checkpoint.Trained of a CTC task.
      paths: of audio files.
      batch_size: files in a device batch, rounded up to a multiple of the devices.

    Yields:
      (path, log-probabilities f32[F, 28] or None, "" or the reason why there are none), in the order of `paths`.
    """
    import jax

    from ser_jax import sharding
    from ser_jax.corpora import audio
    from ser_jax.corpora.schema import SAMPLE_RATE, BadAudio
    from ser_jax.data import batches

    network, task = trained.network, trained.network.task
    mesh = sharding.mesh(jax.local_devices())
    weights = jax.device_put((trained.params, trained.stats), sharding.replicated(mesh))

    @jax.jit
    def scores_of(params, stats, batch):
        return task.scores(network.apply(params, stats, batch))

    def read(path):
        try:
            speech = audio.read(path)
            audio.check(speech)
        except BadAudio as error:
            return path, None, str(error)
        if not task.pieces(len(speech), None):
            shortest = task.min_samples / SAMPLE_RATE
            return path, None, f"too short: {len(speech) / SAMPLE_RATE:.3f} s (shortest: {shortest:.3f} s)"
        return path, speech, ""

    batch_size = -(-min(batch_size, len(paths)) // mesh.size) * mesh.size
    files = batches.ahead(read, paths, depth=batch_size)
    while window := list(itertools.islice(files, WINDOW_BATCHES * batch_size)):
        pieces = [batches.Piece(row, 0, 0, len(speech)) for row, (_, speech, reason) in enumerate(window) if not reason]
        pieces.sort(key=lambda piece: piece.length)
        found = {}
        for first in range(0, len(pieces), batch_size):
            members = pieces[first:first + batch_size]
            length = batches.padded_length(members[-1].length, None)
            batch = batches.load(lambda row, window=window: window[row][1], length, members, batch_size)
            scores = jax.device_get(scores_of(*weights, sharding.put(batch, mesh)))
            for i, piece in enumerate(members):
                found[piece.row] = task.combine([jax.tree.map(lambda leaf, i=i: leaf[i], scores)])["log_probs"]
        for row, (path, _, reason) in enumerate(window):
            yield path, found.get(row), reason


def _spelt(heard, options, jobs):
    """(path, text, reason) for what `recognised` yields; the search runs in this process or in `jobs` others."""
    from ser_jax.data import batches

    if jobs == 1 or options is None:
        for path, log_probs, reason in heard:
            yield path, "" if reason else _text(log_probs, options), reason
        return
    import multiprocessing
    from concurrent import futures

    context = multiprocessing.get_context("spawn")  # a fork of JAX's threads may hang
    with futures.ProcessPoolExecutor(jobs, context, _start_worker, (options,)) as pool:
        def spell(item):
            path, log_probs, reason = item
            return path, "" if reason else pool.submit(_text_in_worker, log_probs).result(), reason

        yield from batches.ahead(spell, heard, depth=2 * jobs, threads=jobs)


def _text(log_probs, options):
    from ser_jax.tasks import alphabet, decoding

    text = decoding.greedy(log_probs) if options is None else decoding.beam_search(log_probs, **options)
    return alphabet.normalise(text)


_worker_options = None


def _start_worker(options):
    global _worker_options
    _worker_options = options


def _text_in_worker(log_probs):
    return _text(log_probs, _worker_options)


def _printable(path):
    """The path with bytes that are not UTF-8 written as \\udcXX, tabs and line ends as \\t and \\n."""
    return str(path).encode("utf-8", "backslashreplace").decode().replace("\t", "\\t").replace("\n", "\\n")
