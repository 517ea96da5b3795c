"""Write an image folder as tar shards, for data that no single disk holds.

The folder has train/<class>/ and val/<class>/. The same command continues an interrupted run.

Examples:
  d2-isonet make-shards /data/imagenet --output /data/imagenet_shards
  d2-isonet pretrain --config-file imagenet/risonet50 --data-root /data/imagenet_shards
"""

import argparse
import sys
from pathlib import Path

from d2_isonet.utils.messages import INTERRUPTED, UserError, readable_errors

from .arguments import Parser


def argument_parser(program: str | None = None) -> Parser:
    usage = "FOLDER --output DIR [options]"
    parser = Parser("make-shards", __doc__, program, usage=usage, check=_problem)
    parser.add_argument("folder", type=Path, metavar="FOLDER",
                        help="folder with train/<class>/ and val/<class>/")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR",
                        help="folder for the shards and their index.json (required)")  # fmt: skip
    size = parser.add_mutually_exclusive_group().add_argument
    size("--shard-megabytes", type=float, default=100.0, metavar="MB",
         help="size of a shard, about, in 10^6 bytes; a loader process holds one")  # fmt: skip
    size("--shard-samples", type=int, metavar="N",
         help="most images of a shard (default: no limit but the size)")  # fmt: skip
    add = parser.add_argument
    add("--seed", type=int, default=0, metavar="N",
        help="seed of the order of train/; val/ keeps its order")  # fmt: skip
    add("--workers", type=int, default=4, metavar="N", help="number of shards written at a time")
    return parser


def _problem(args: argparse.Namespace) -> str:
    samples = 1 if args.shard_samples is None else args.shard_samples
    are_positive = [x > 0 for x in (args.shard_megabytes, samples, args.workers)]
    valid = all(are_positive) and args.seed >= 0
    return "" if valid else "sizes and workers must be positive, the seed not negative"


def make_shards(args: argparse.Namespace) -> str:
    """Write what is missing in the output folder; return a line about what it then holds."""
    from tqdm import tqdm

    from d2_isonet.data.shards.plan import make_plan
    from d2_isonet.data.shards.writing import is_finished, open_journal, require_space, write_shards

    folder, output = args.folder.expanduser(), args.output.expanduser()
    if output.resolve() == folder.resolve():
        raise UserError(f"--output is the image folder {folder} itself", "give another one")
    plan = make_plan(folder, args.shard_megabytes, args.shard_samples, args.seed)
    if not is_finished(output, plan):
        with open_journal(output, plan) as journal:
            require_space(journal)
            total = sum(shard.bytes for shard in plan.shards)
            begun = total - sum(shard.bytes for shard in journal.missing())
            with tqdm(total=total, initial=begun, unit="B", unit_scale=True) as bar:
                write_shards(journal, args.workers, bar.update)
            journal.finish()
    images = sum(len(shard.images) for shard in plan.shards)
    return f"{output}: {images} images of {len(plan.classes)} classes in {len(plan.shards)} shards"


def main(arguments: list[str] | None = None) -> int:
    args = argument_parser().parse_args(arguments)

    with readable_errors():
        try:
            print(make_shards(args))
        except OSError as error:  # a disk that is full or fails, a file that is gone
            raise UserError(str(error)) from error
        except KeyboardInterrupt:
            print("make-shards: stopped; the same command continues from here", file=sys.stderr)
            return INTERRUPTED
    return 0
