"""Compare time and memory of d2_isonet with those of the usual alternatives.

python tools/benchmark.py regularizer --depth 50      one subject
python tools/benchmark.py all                         all measurements, minutes each
python tools/benchmark.py train --device cuda         on a GPU
python tools/benchmark.py scaling-plan                8, 64 and 512 GPUs, computed, not measured
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from . import scaling_plan

HEADS = ("dc5", "c4", "fpn")
DEPTHS = (18, 34, 50, 101)
# Name on the command line -> module and function
SUBJECTS = {
    "regularizer": ("operators", "compare_penalty"),
    "srelu": ("operators", "compare_srelu"),
    "train": ("training", "compare_steps"),
    "keys": ("training", "compare_keys"),
    "inference": ("detectors", "compare_inference"),
    "profile": ("profiling", "compare_kinds"),
    "pretrain": ("pretraining", "compare_speed"),
    "loader": ("loading", "compare"),
    "coco-eval": ("coco_evaluation", "compare"),
    "import": ("imports", "compare"),
    "growth": ("profiling", "compare_sizes"),
    "scaling": ("pretraining", "compare_processes"),
}
PLAN = "scaling-plan"


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("subject", nargs="+", choices=[*SUBJECTS, "all", PLAN], metavar="SUBJECT",
        help=f"{', '.join(SUBJECTS)}; {PLAN}; or all, which leaves out {PLAN}")  # fmt: skip
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure (cpu)")
    add("--depth", nargs="+", type=int, choices=DEPTHS, default=list(DEPTHS),
        help="of the networks, if the subject does not fix the depth (all)")  # fmt: skip
    add("--head", nargs="+", choices=HEADS, default=list(HEADS), help="of the detectors (all)")
    add("--repetitions", type=int, default=5, metavar="N", help="measurements of each side (5)")
    add("--threads", type=int, metavar="N", help="of a CPU (PyTorch's default)")
    add("--image-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), default=[800, 1344],
        help="pixels of an image of detection (800 1344)")  # fmt: skip
    add("--quick", action="store_true", help="tiny sizes, as a test: the numbers mean nothing")
    add("--output", type=Path, default=Path("output/benchmark"), metavar="FOLDER",
        help="of the json files (output/benchmark)")  # fmt: skip
    scaling_plan.add_arguments(parser.add_argument_group(PLAN))
    args = parser.parse_args(arguments)
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("--device cuda: this machine has no CUDA device")
    if args.repetitions < 1 or (args.threads is not None and args.threads < 1):
        parser.error("--repetitions and --threads must be at least 1")
    if "all" in args.subject:
        args.subject = list(SUBJECTS)
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    import torch

    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)
    machine = describe_machine(args.device, args.threads)
    print(machine["summary"])
    for subject in args.subject:
        if subject == PLAN:
            scaling_plan.show(args)
        else:
            measure(subject, args, machine)


def measure(subject: str, args: argparse.Namespace, machine: dict) -> None:
    """Measure a subject, print its table and write its rows, each as soon as it is measured."""
    from .measure import table

    module, function = SUBJECTS[subject]
    compare: Callable = getattr(importlib.import_module(f".{module}", __package__), function)
    rows, path = [], args.output / f"{subject}_{args.device}.json"
    args.output.mkdir(parents=True, exist_ok=True)
    content = {"subject": subject, "machine": machine, "rows": []}
    with tqdm(desc=subject, unit="row", leave=False) as progress:
        for row in compare(args):
            rows.append(row)
            content["rows"].append({**asdict(row), "ratio": row.ratio, "reached": row.reached})
            path.write_text(json.dumps(content, indent=2) + "\n")
            progress.set_postfix_str(row.name)
            progress.update()
    print(f"\n{subject}: {(compare.__doc__ or '').splitlines()[0]}\n{table(rows)}")
    print(f"Written: {path}", flush=True)


def describe_machine(device: str, threads: int) -> dict:
    """The machine and versions that a ratio depends on; "summary" is a line for a person."""
    import torch

    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=7"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    facts = {
        "device": device,
        "name": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cpu_threads": threads,
        "cpu_cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit or "unknown",  # "dirty" if files differ from it
    }
    facts["summary"] = (
        "{name}, {cpu_threads} CPU thread(s) of {cpu_cores}; torch {torch}; commit {commit}. "
        "Medians; ratio: ours / peer, repetition by repetition (least to largest)"
    ).format(**facts)
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
