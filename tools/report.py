#!/usr/bin/env python
"""Make one HTML page of training runs: curves, results, errors, images, where they come from.

python tools/report.py output/risonet50_c4                              one run
python tools/report.py output/risonet50_c4 output/resnet50_c4           several side by side

The page is one file that needs no network. Runs of train_net.py and tools/pretrain_imagenet.py,
finished or not; what a run lacks is said in the page.
"""

import argparse
from pathlib import Path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("output_dirs", nargs="+", type=Path, metavar="OUTPUT_DIR", help="of a run")
    add("--output", type=Path, default=Path("report.html"), metavar="FILE", help="(report.html)")
    add("--names", nargs="+", metavar="NAME", help="of the runs, in order (their folders')")
    add("--images", type=int, default=6, metavar="N", help="best and worst ones drawn (6)")
    add("--score-threshold", type=float, metavar="SCORE",
        help="of detections in matrix and pictures (the one of the best F1)")  # fmt: skip
    add(
        "--truth", type=Path, metavar="FILE", help="COCO json, where the one evaluated on has moved"
    )
    add("--image-root", type=Path, metavar="DIR", help="of its images")
    args = parser.parse_args(arguments)
    if args.names and len(set(args.names)) != len(args.output_dirs):
        parser.error("--names needs a name of its own for each OUTPUT_DIR")
    if args.images < 0:
        parser.error("--images must not be negative")
    if args.output.is_dir():
        parser.error(f"--output {args.output} is a folder: give a file, {args.output}/report.html")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from d2_isonet.utils.messages import readable_errors  # takes seconds to import

    with readable_errors():
        from d2_isonet.reporting.runs.compose import Options, compose
        from d2_isonet.reporting.runs.run import names_of, read_run

        names = args.names or names_of(args.output_dirs)
        runs = [read_run(*pair) for pair in zip(args.output_dirs, names, strict=True)]
        options = Options(args.images, args.score_threshold, args.truth, args.image_root)
        file = compose(runs, options).write(args.output)
    for run in runs:
        for note in run.notes:
            print(f"{run.name}: {note}")
    print(f"Written: {file} ({file.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
