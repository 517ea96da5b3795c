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
from d2_isonet.utils.messages import UserError

from .arguments import OWN_DATA, Parser

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def argument_parser(program: str | None = None) -> Parser:
    usage = "--config-file FILE [options] [KEY VALUE ...]"
    parser = Parser("show-data", __doc__, program, usage=usage, check=_problem)
    add = parser.group("what to show")
    add("--config-file FILE")
    add("--source {mapper,annotation}",
        "mapper: augmented, as the network sees them; annotation: as annotated",
        "mapper")  # fmt: skip
    add("--num-images N", "number of images", 24, least=1, old=("--images",))
    add("--output DIR", "folder for the page and the pictures", Path("data_preview"))
    add("opts")
    add = parser.group(OWN_DATA)
    add("--train-annotations FILE")
    add("--train-images DIR")
    add = parser.group("your own images, for a classifier")
    add("--data-root DIR", "folder with train/<class>/ (default: the dataset of the config)")
    parser.set_defaults(val_json=None, val_images=None, eval_only=False)
    return parser


def _problem(args: argparse.Namespace) -> str:
    is_file = args.output.exists() and not args.output.is_dir()
    return f"--output {args.output} is a file: give a folder" if is_file else ""


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
    return argument_parser().run(show, arguments)


def show(args: argparse.Namespace) -> None:
    """Write the page of the images that the arguments ask for."""
    require_packages("jinja2", "matplotlib", "cv2", needed_by="the page")
    cfg = setup(args)
    from d2_isonet.reporting.data_preview import from_annotations, from_mapper, write_preview

    read = from_mapper if args.source == "mapper" else from_annotations
    page = write_preview(read(cfg, args.num_images), cfg, args.source, args.output)
    print(f"Written: {page} ({page.stat().st_size / 1e6:.1f} MB), and a jpg for each image")
