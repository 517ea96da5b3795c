#!/usr/bin/env python
"""Measure d2_isonet beside what users would pick instead: time, memory and their ratios.

python tools/benchmark.py regularizer --depth 50      one subject
python tools/benchmark.py all                         every subject, minutes each
python tools/benchmark.py train --device cuda         on a GPU
"""

import argparse
import importlib
from pathlib import Path

import torch
from benchmarks.report import describe_machine, write_json
from benchmarks.report import table as format_table
from tqdm import tqdm

HEADS = ("dc5", "c4", "fpn")
# name on the command line -> module in benchmarks/
SUBJECTS = {
    "regularizer": "regularizer",
    "srelu": "srelu",
    "train": "training",
    "keys": "keys",
    "inference": "inference",
    "profile": "profiling",
    "pretrain": "pretraining",
    "loader": "loading",
    "coco-eval": "coco_evaluation",
    "import": "imports",
    "growth": "growth",
    "scaling": "scaling",
}


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("subject", nargs="+", choices=[*SUBJECTS, "all"])
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--depth", nargs="+", type=int, choices=(18, 34, 50, 101), default=[18, 34, 50, 101],
        help="of the networks whose depth does not follow from the subject")  # fmt: skip
    add("--head", nargs="+", choices=HEADS, default=list(HEADS), help="of detection")
    add("--repetitions", type=int, default=5, metavar="N", help="counted runs of each side (5)")
    add("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="of a CPU")
    add("--image-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), default=[800, 1344],
        help="of detection (800 1344)")  # fmt: skip
    add("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    add("--output", type=Path, default=Path("output/benchmark"))
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device")
    if args.repetitions < 1 or args.threads < 1:
        parser.error("--repetitions and --threads must be at least 1")
    args.subject = list(SUBJECTS) if "all" in args.subject else args.subject
    return args


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    machine = describe_machine(args.device, args.threads)
    print(machine["summary"])
    for subject in args.subject:
        module = importlib.import_module(f"benchmarks.{SUBJECTS[subject]}")
        rows, path = [], args.output / f"{subject}_{args.device}.json"
        with tqdm(desc=subject, unit="row", leave=False) as progress:
            for row in module.compare(args):
                rows.append(row)
                write_json(path, subject, rows, machine)  # what is measured is not lost
                progress.set_postfix_str(row.name)
                progress.update()
        print(f"\n{subject}: {module.__doc__.strip().splitlines()[0]}\n{format_table(rows)}")
        print(f"Written: {path}", flush=True)


if __name__ == "__main__":
    main(parse_args())
