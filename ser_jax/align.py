"""Label the frames of prepared corpora: by their phones, by an alignment, by a trained net, or by voice activity.

The file is what tasks on frames are trained on. A frame of 25 ms gets the label of the segment that holds its centre;
every 10 ms there is one. --from says where the labels come from:
  phones     the phones in the records; of each the frames are cut into thirds, the three states of its model
  ctm:FILE   the phones of a Kaldi CTM file (UTTERANCE CHANNEL START DURATION PHONE), cut likewise
  voice      voice activity: 1 where a frame is loud enough and voiced, else 0
  WORKDIR    forced alignment of known transcripts by a net that was trained on phone states
"""

from pathlib import Path

from ser_jax.errors import DONE, UsageError, UserError

EXAMPLE = "ser-jax align prepared/timit --from phones --out labels/timit.parquet"


def add_arguments(parser):
    parser.add_argument("corpora", nargs="+", type=Path, metavar="CORPUS", help="prepared corpus")
    parser.add_argument("--from", dest="source", required=True, metavar="SOURCE",
                        help="phones, ctm:FILE, voice or a WORKDIR")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.parquet", help="file to write")
    parser.add_argument("--transcripts", type=Path, default=None, metavar="FILE.parquet",
                        help="frame labels with the transcripts to align, for --from WORKDIR (default: those that the "
                             "net was trained on)")
    parser.add_argument("--step", default=None, help="of WORKDIR: best (default), last, or a number of steps")
    parser.add_argument("--batch-size", type=int, default=32, help="utterances that are heard at a time (default 32)")


def run(args):
    _check(args)
    from ser_jax import alignment, sharding
    from ser_jax.data import pipeline
    from ser_jax.data.frame_labels import write_frame_labels

    corpora = pipeline.open_corpora(args.corpora)
    _check_ids(corpora)
    sharding.use_compilation_cache()
    found = alignment.Found()
    if args.source == "phones":
        meta = alignment.from_phones(corpora, found)
    elif args.source.startswith("ctm:"):
        meta = alignment.from_ctm(corpora, Path(args.source.removeprefix("ctm:")), found)
    elif args.source == "voice":
        meta = alignment.from_voice(corpora, args.batch_size, found)
    else:
        meta = alignment.from_net(corpora, args.source, args.step or "best", args.transcripts, args.batch_size, found)
    found.tell()
    if not found.rows:
        raise UserError(f"{args.out}: not written, as no utterance has frame labels (see above)")
    write_frame_labels(args.out, found.rows, meta)
    print(found.summary(meta, args.out))
    return DONE


def _check(args):
    if args.out.suffix != ".parquet" or args.out.is_dir():
        raise UsageError(f"--out {args.out}: name a .parquet file")
    if args.batch_size < 1:
        raise UsageError(f"--batch-size {args.batch_size}: must be at least 1")
    known = args.source in ("phones", "voice") or args.source.startswith("ctm:")
    for option in ("transcripts", "step"):
        if known and getattr(args, option) is not None:
            raise UsageError(f"--{option} is for --from WORKDIR, a net that aligns; leave it out")
    if not known and not Path(args.source).is_dir():
        raise UsageError(f"--from {args.source}: no such folder; give phones, ctm:FILE, voice, or the workdir of a net")


def _check_ids(corpora):
    seen = set()
    for corpus in corpora:
        twice = seen & set(corpus.index["id"])
        if twice:
            raise UsageError(f"{corpus.path}: utterance {min(twice)} is in another of the corpora too; "
                             "name each corpus once")
        seen |= set(corpus.index["id"])
