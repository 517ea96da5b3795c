"""The arguments that the training scripts share; reading them imports neither torch nor more."""

import argparse
import sys

EXAMPLES = """\
examples:
  {script} --config-file FILE --num-gpus 8
  {script} --config-file FILE SOLVER.BASE_LR 0.005 MODEL.WEIGHTS backbone.pth
  {script} --config-file FILE --resume
  two machines, started by hand, the first of which can be reached as HOST:
    {script} --config-file FILE --num-gpus 8 --num-machines 2 --dist-url tcp://HOST:PORT --machine-rank 0
    {script} --config-file FILE --num-gpus 8 --num-machines 2 --dist-url tcp://HOST:PORT --machine-rank 1
"""  # noqa: E501


def argument_parser(description: str) -> argparse.ArgumentParser:
    """What detectron2's default_argument_parser takes, and --trust-pickle.

    detectron2's own is not called because it takes seconds to import, even for --help; a test
    compares the two option by option.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=EXAMPLES.format(script=sys.argv[0]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", default="", help="yaml of the network and its training")
    add("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    add("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, train nothing")
    _add_processes(parser)
    add(
        "--trust-pickle",
        action="store_true",
        help="read .pkl weights, which can run any code their author put in",
    )
    add(
        "opts",
        nargs=argparse.REMAINDER,
        help="at the end: KEY VALUE or KEY=VALUE pairs that change the config",
    )
    return parser


def _add_processes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--num-gpus", type=int, default=1, help="of each machine; processes where it has none (1)")
    add("--num-machines", type=int, default=1, help="that train together (1)")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0 (0)")
    add(
        "--dist-url",
        default="auto",  # detectron2's is one port for every job of a user
        help="where the processes meet, tcp://HOST:PORT of the first machine (a free port)",
    )
    add(
        "--dist-timeout",
        type=float,
        default=1800.0,  # detectron2's: the first process evaluates COCO while the others wait
        metavar="SECONDS",
        help="how long processes wait for each other, at the start and later (1800)",
    )
