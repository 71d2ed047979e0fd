"""The whole chain on the embedded corpus, no download: speech, pretraining, embeddings, honest scores, a page.

Each step is a verb of the command, printed as you would type it. The corpus is synthetic speech: the numbers show that
the machinery works, not what it is worth, and are stamped SYNTHETIC.
"""

import shlex
import time
from pathlib import Path

from ser_jax.errors import DONE
from ser_jax.progress import format_seconds

EXAMPLE = "ser-jax demo --out demo"
CONFIG = Path(__file__).parents[1] / "configs" / "pretrain" / "sample_cnn_espeak.py"


def add_arguments(parser):
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything the demo makes (default: demo)")
    parser.add_argument("--steps", type=int, default=120, help="pretraining steps (default: 120)")


def run(args):
    from ser_jax import cli, results

    out = args.out
    corpus, workdir, features, scores = out / "prepared", out / "run", out / "features.parquet", out / "results_demo"
    begin = time.monotonic()
    (scores / "results.jsonl").unlink(missing_ok=True)  # a second demo must not list the rows of the first
    for verb in (
        f"prepare espeak --out {_q(corpus)}",
        f"pretrain {_q(CONFIG)} --workdir {_q(workdir)} --set data.corpora={_q(corpus)} --set train.steps={args.steps}",
        f"evaluate {_q(workdir)} --corpus {_q(corpus)} --split test --out {_q(scores)}",
        f"export --workdir {_q(workdir)} --corpus {_q(corpus)} --out {_q(features)}",
        f"probe --features {_q(features)} --protocol official --target emotion --head compare --out {_q(scores)}",
        f"probe --features {_q(features)} --protocol losso --target emotion --head linear --out {_q(scores)}",
        f"report {_q(scores)} --workdir {_q(workdir)} --out {_q(out / 'report.html')}",
    ):
        print(f"\n$ ser-jax {verb}", flush=True)
        code = cli.main(shlex.split(verb))
        if code != DONE:
            return code
    print(f"\nResults (SYNTHETIC speech) after {format_seconds(time.monotonic() - begin)}:\n")
    results.print_rows(results.read_rows(scores))
    print(f"\ntable      {scores / 'results.jsonl'}\npage       {out / 'report.html'}\ncheckpoint {workdir}\n"
          f"embeddings {features}")
    return DONE


def _q(path):
    return shlex.quote(str(path))
