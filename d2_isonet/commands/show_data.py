"""Show a config's training images as the network sees them, or as they are annotated.

It writes a page, index.html, and a picture of each image into a folder.

Examples:
  d2-isonet show-data --config-file risonet50_c4
  d2-isonet show-data --config-file risonet50_c4 --source annotation --num-images 100
  d2-isonet show-data --config-file risonet50_c4 --train-annotations train.json \\
      --train-images images/
  d2-isonet show-data --config-file imagenet/risonet50 --data-root FOLDER
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import UserError, readable_errors

from .arguments import Parser, add_pairs, add_training_data

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE [options] [KEY VALUE ...]"
    parser = Parser("show-data", __doc__, program, usage=usage, check=_problem)
    add = parser.add_argument_group("what to show").add_argument
    add("--config-file", required=True, metavar="FILE",
        help="a yaml file, or the name of a config such as risonet50_fpn (required)")  # fmt: skip
    add("--source", choices=("mapper", "annotation"), default="mapper",
        help="mapper: augmented, as the network sees them; annotation: as annotated")  # fmt: skip
    number = add("--num-images", type=int, default=24, metavar="N", help="number of images")
    parser.accept_old(number, "--images")
    add("--output", type=Path, default=Path("data_preview"), metavar="DIR",
        help="folder for the page and the pictures")  # fmt: skip
    add_pairs(add)
    add_training_data(parser)
    add = parser.add_argument_group("your own images, for a classifier").add_argument
    add("--data-root", metavar="DIR",
        help="folder with train/<class>/ (default: the dataset of the config)")  # fmt: skip
    parser.set_defaults(val_json=None, val_images=None, eval_only=False)
    return parser


def _problem(args: argparse.Namespace) -> str:
    if args.num_images < 1:
        return f"--num-images is {args.num_images}; it must be at least 1"
    if args.output.exists() and not args.output.is_dir():
        return f"--output {args.output} is a file: give a folder"
    return ""


def setup(args: argparse.Namespace) -> "CfgNode":
    """The config of a training on one process, with its datasets registered and checked."""
    from d2_isonet.config.loading import load_config
    from d2_isonet.data.datasets import load_registered, register_data_root, use_own_data
    from d2_isonet.preflight.data.sets import check_datasets
    from d2_isonet.solver.schedule import scale_to_processes

    cfg = load_config(args.config_file, args.opts)
    cfg.DATASETS.TEST = ()
    cfg.DATALOADER.NUM_WORKERS = 0
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        if args.train_json:
            raise UserError(f"{args.config_file} is of a classifier", "give --data-root")
        if args.data_root:
            cfg.DATASETS.TRAIN = register_data_root(args.data_root)[:1]
        load_registered(cfg.DATASETS.TRAIN)  # raises if the folder is not usable
    else:
        if args.data_root:
            raise UserError(f"{args.config_file} is of a detector", "give --train-annotations")
        use_own_data(cfg, args)
        check_datasets(cfg)
    cfg = scale_to_processes(cfg)
    cfg.freeze()
    return cfg


def main(arguments: list[str] | None = None) -> int:
    args = argument_parser().parse_args(arguments)

    with readable_errors():
        require_packages("jinja2", "matplotlib", "cv2", needed_by="the page")
        cfg = setup(args)
        from d2_isonet.reporting.data_preview import from_annotations, from_mapper, write_preview

        read = from_mapper if args.source == "mapper" else from_annotations
        page = write_preview(read(cfg, args.num_images), cfg, args.source, args.output)
    print(f"Written: {page} ({page.stat().st_size / 1e6:.1f} MB), and a jpg for each image")
    return 0
