#!/usr/bin/env python
"""Show what a config's training images look like to the network, or as they are annotated.

python tools/visualize_data.py --config-file configs/risonet50_c4.yaml
python tools/visualize_data.py --config-file FILE --train-json train.json --train-images images/
python tools/visualize_data.py --config-file configs/imagenet/risonet50.yaml --data-root FOLDER

Writes a page, index.html, and the pictures into a folder.
"""

import argparse
from pathlib import Path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="of detection or of classification")
    add("--source", choices=("mapper", "annotation"), default="mapper",
        help="after augmentation, as the network is fed (mapper), or as annotated")  # fmt: skip
    add("--output", type=Path, default=Path("data_preview"), metavar="DIR", help="(data_preview)")
    add("--images", type=int, default=24, metavar="N", help="how many (24)")
    add("--train-json", metavar="FILE", help="annotations of a COCO-format set of your own")
    add("--train-images", metavar="DIR", help="the folder of their images")
    add("--data-root", metavar="DIR", help="classification: folder with train/<class>/")
    add("opts", nargs=argparse.REMAINDER, help="at the end: KEY VALUE or KEY=VALUE pairs")
    args = parser.parse_args(arguments)
    args.val_json = args.val_images = None
    args.eval_only = False
    if args.images < 1:
        parser.error("--images must be at least 1")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"--output {args.output} is a file: give a folder")
    return args


def setup(args: argparse.Namespace):
    """The config as a training on one process has it, its data sets registered and checked."""
    from d2_isonet.config.loading import load_config
    from d2_isonet.data.datasets import load_registered, register_data_root, use_own_data
    from d2_isonet.preflight.data.sets import check_datasets
    from d2_isonet.solver.schedule import scale_to_processes
    from d2_isonet.utils.messages import UserError

    cfg = load_config(args.config_file, args.opts)
    cfg.DATASETS.TEST = ()
    cfg.DATALOADER.NUM_WORKERS = 0
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        if args.train_json:
            raise UserError(f"{args.config_file} is of a classifier: give --data-root")
        if args.data_root:
            cfg.DATASETS.TRAIN = register_data_root(args.data_root)[:1]
        load_registered(cfg.DATASETS.TRAIN)  # says what is wrong with the folder
    else:
        if args.data_root:
            raise UserError(f"{args.config_file} is of a detector: give --train-json")
        use_own_data(cfg, args)
        check_datasets(cfg)
    cfg = scale_to_processes(cfg)
    cfg.freeze()
    return cfg


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from d2_isonet.utils.messages import readable_errors

    with readable_errors():
        cfg = setup(args)
        from d2_isonet.reporting.data_preview import from_annotations, from_mapper, write_preview

        samples = (from_mapper if args.source == "mapper" else from_annotations)(cfg, args.images)
        page = write_preview(samples, cfg, args.source, args.output)
    print(f"Written: {page} ({page.stat().st_size / 1e6:.1f} MB), and a jpg for each image")


if __name__ == "__main__":
    main()
