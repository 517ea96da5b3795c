"""Splits a COCO file into training and validation: two files in OUTPUT_DIR, made once."""

import argparse
import hashlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.config import CfgNode

from d2_isonet.data.coco_json import read_annotations, repeated
from d2_isonet.preflight.findings import Finding, check_once
from d2_isonet.utils.files import write_text
from d2_isonet.utils.messages import UserError

from .coco_content import coco_entries
from .copies import looks_at

_PARTS = ("train", "val")
_SEED = 0  # not cfg.SEED: runs that differ in it are compared on the same images
_REPLACED = (
    "to use that: --train-annotations {0} --train-images {2} --val-annotations {1} --val-images {2}"
)


def use_split(
    cfg: CfgNode,
    args: argparse.Namespace,
    report: Callable[[Callable[[], list[Finding]]], list[Finding]] = check_once,
) -> list[Finding]:
    """Replace --val-fraction in `args` by the options of a split, whose files are made if needed.

    The names of the files contain a hash of the annotations and the fraction: these always give
    the same split, and no other split is overwritten.

    Args:
        report: called in every process with the function that makes the files.

    Raises:
        UserError: there is nothing to split, validation is given as well, or a run that is
            continued or evaluated has another split.
    """
    share = getattr(args, "val_fraction", 0.0)  # a script may have its own parser
    source, images = args.train_json, args.train_images
    if not share:
        return []
    if not (source and images) or args.val_json or args.val_images:
        remedy = "give these and --train-images, and neither --val-annotations nor --val-images"
        raise UserError("--val-fraction splits --train-annotations", remedy)
    content, folder = read_annotations(source), Path(cfg.OUTPUT_DIR)
    key = hashlib.blake2b(f"{share:g} {json.dumps(content)}".encode(), digest_size=4).hexdigest()
    files = [str(folder / f"own_{part}_{key}.json") for part in _PARTS]
    is_new = not all(map(os.path.exists, files))
    others = sorted(folder.glob("own_val_*.json")) if is_new else []
    if others and (args.eval_only or args.resume):
        pair = [str(others[-1]).replace("own_val_", f"own_{part}_") for part in _PARTS]
        what = f"--val-fraction {share:g}: {folder} has the split of other annotations or fraction"
        raise UserError(what, _REPLACED.format(*pair, images))

    def make() -> list[Finding]:
        if is_new:
            _write(content, _is_validation(content["images"], images, share), files)
        counts = [len(read_annotations(file)["images"]) for file in files]
        what = f"{counts[0]} images to train on and {counts[1]} to evaluate: {', '.join(files)}"
        return [Finding("fact", f"--val-fraction {share:g}", what)]

    findings = report(make)
    args.val_fraction, args.val_images = 0.0, images
    args.train_json, args.val_json = files
    return findings


def _write(content: dict, is_validation: Sequence[bool], files: Sequence[str]) -> None:
    pairs = [*zip(content["images"], is_validation, strict=True)]
    ids = {str(image.get("id")) for image, chosen in pairs if chosen}
    for file, part in zip(files, (False, True), strict=True):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        images = [image for image, chosen in pairs if chosen == part]
        annotations = content.get("annotations", [])
        annotations = [a for a in annotations if (str(a.get("image_id")) in ids) == part]
        write_text(file, json.dumps({**content, "images": images, "annotations": annotations}))


def _is_validation(images: Sequence[dict], image_root: str, share: float) -> list[bool]:
    """Whether each image is one for validation; images that show the same are of one part."""
    # the check of the training part has an error for the others
    twice = repeated(str(image.get("id")) for image in images)
    usable = [isinstance(x.get("file_name"), str) and str(x.get("id")) not in twice for x in images]
    places = [place for place, is_usable in enumerate(usable) if is_usable]
    entries = coco_entries({"images": [images[place] for place in places]}, image_root)
    files = looks_at(entry.path for entry in entries)
    groups = defaultdict(list)
    for place, entry in zip(places, entries, strict=True):
        groups[files[entry.path].digest or entry.path].append(place)
    order, number = [*groups.values()], max(1, round(share * len(images)))
    random.Random(_SEED).shuffle(order)
    chosen: set[int] = set()
    for group in order:
        chosen |= {*group} if len(chosen) + len(group) <= number else set()
    chosen = chosen or {*min(order, key=len, default=[])}
    if len(chosen) in (0, len(images)):
        what = f"--val-fraction {share:g}: only {len(order)} of {len(images)} images are different"
        raise UserError(what, "add images, or give --val-annotations and --val-images")
    return [place in chosen for place in range(len(images))]
