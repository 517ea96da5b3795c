"""Write an image folder as tar shards, for data that no single disk holds.

The folder has train/<class>/ and val/<class>/. The same command continues an interrupted run.

Examples:
  d2-isonet make-shards /data/imagenet --output /data/imagenet_shards
  d2-isonet pretrain --config-file imagenet/risonet50 --data-root /data/imagenet_shards
"""

import argparse
from pathlib import Path

from d2_isonet.utils.messages import UserError

from .arguments import Parser


def argument_parser(program: str | None = None) -> Parser:
    usage = "FOLDER --output DIR [options]"
    parser = Parser("make-shards", __doc__, program, usage=usage, check=_problem)
    parser.add_argument("folder", type=Path, metavar="FOLDER",
                        help="folder with train/<class>/ and val/<class>/")  # fmt: skip
    add = parser.group(parser)
    add("--output DIR", "folder for the shards and their index.json", type=Path, required=True)
    size = parser.group(parser.add_mutually_exclusive_group())
    size("--shard-megabytes MB", "size of a shard, about, in 10^6 bytes; a loader process holds "
         "one", 100.0)  # fmt: skip
    size("--shard-samples N", "most images of a shard (default: no limit but the size)", type=int,
         least=1)  # fmt: skip
    add("--seed N", "seed of the order of train/; val/ keeps its order", 0, least=0)
    add("--workers N", "number of shards written at a time", 4, least=1)
    return parser


def _problem(args: argparse.Namespace) -> str:
    return "" if args.shard_megabytes > 0 else "--shard-megabytes must be positive"


def make_shards(args: argparse.Namespace) -> None:
    """Write what is missing in the output folder, and print what it then holds."""
    from d2_isonet.data.shards.plan import make_plan

    folder, output = args.folder.expanduser(), args.output.expanduser()
    if output.resolve() == folder.resolve():
        raise UserError(f"--output is the image folder {folder} itself", "give another one")
    try:
        plan = make_plan(folder, args.shard_megabytes, args.shard_samples, args.seed)
        _write(plan, output, args.workers)
    except OSError as error:  # a disk that is full or fails, a file that is gone
        raise UserError(str(error)) from error
    images = sum(len(shard.images) for shard in plan.shards)
    print(f"{output}: {images} images of {len(plan.classes)} classes in {len(plan.shards)} shards")


def _write(plan, output: Path, workers: int) -> None:
    from tqdm import tqdm

    from d2_isonet.data.shards.writing import is_finished, open_journal, require_space, write_shards

    if is_finished(output, plan):
        return
    with open_journal(output, plan) as journal:
        require_space(journal)
        total = sum(shard.bytes for shard in plan.shards)
        begun = total - sum(shard.bytes for shard in journal.missing())
        with tqdm(total=total, initial=begun, unit="B", unit_scale=True) as bar:
            write_shards(journal, workers, bar.update)
        journal.finish()


def main(arguments: list[str] | None = None) -> int:
    stopped = "make-shards: stopped; the same command continues from here"
    return argument_parser().run(make_shards, arguments, interrupted=stopped)
