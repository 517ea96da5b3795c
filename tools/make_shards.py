#!/usr/bin/env python
"""Tar shards of an image folder, FOLDER/{train,val}/<class>/*, for data that no single disk holds.

python tools/make_shards.py /data/imagenet --output /data/imagenet_shards
python tools/pretrain_imagenet.py --config-file FILE --data-root /data/imagenet_shards
"""

import argparse
import sys
from pathlib import Path

# The rest takes seconds to import: only when the arguments are read, so that --help does not wait.


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="with train/<class>/ and val/<class>/")
    add("--output", type=Path, required=True, help="folder of the shards and their index.json")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--shard-megabytes",
        type=float,
        default=100.0,
        metavar="MB",
        help="10^6 bytes of a shard, about; every worker has one in memory (100)",
    )
    size.add_argument("--shard-samples", type=int, metavar="N", help="images of a shard, at most")
    add("--seed", type=int, default=0, help="of the order of train/; val/ keeps its order (0)")
    add("--workers", type=int, default=4, help="shards written at a time (4)")
    options = parser.parse_args(arguments)
    samples = 1 if options.shard_samples is None else options.shard_samples
    are_positive = [x > 0 for x in (options.shard_megabytes, samples, options.workers)]
    if not all(are_positive) or options.seed < 0:
        parser.error("sizes and workers must be positive, the seed not negative")
    return options


def make_shards(options: argparse.Namespace) -> str:
    """Write what is missing in the output folder; returns what it then holds."""
    from tqdm import tqdm

    from d2_isonet.data.shards.plan import make_plan
    from d2_isonet.data.shards.writing import is_finished, open_journal, require_space, write_shards
    from d2_isonet.utils.messages import UserError

    folder, output = options.folder.expanduser(), options.output.expanduser()
    if output.resolve() == folder.resolve():
        raise UserError(f"--output is the image folder {folder} itself; give another one")
    plan = make_plan(folder, options.shard_megabytes, options.shard_samples, options.seed)
    if not is_finished(output, plan):
        with open_journal(output) as journal:
            journal.start(plan)
            require_space(output, plan, journal)
            total = sum(shard.bytes for shard in plan.shards)
            begun = sum(shard.bytes for shard in plan.shards if shard.file in journal.entries)
            with tqdm(total=total, initial=begun, unit="B", unit_scale=True) as bar:
                write_shards(output, plan, journal, options.workers, bar.update)
            journal.finish(plan)
    images = sum(len(shard.images) for shard in plan.shards)
    return f"{output}: {images} images of {len(plan.classes)} classes in {len(plan.shards)} shards"


def main(arguments: list[str] | None = None) -> int:
    """Make the shards; 1 where something is wrong, 130 where the user stopped it."""
    options = parse_arguments(arguments)
    try:
        print(make_shards(options))
    except (ValueError, OSError) as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_shards: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
