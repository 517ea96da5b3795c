"""The COCO json that an evaluation compares with, of data sets that have none of their own."""

import hashlib
import os
import pickle

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json

from .evaluation_files import in_folder_or_elsewhere


def make_coco_json(dataset_name: str, output_dir: str) -> None:
    """Convert a data set of Python's to a COCO json, anew where it has changed; set json_file.

    detectron2 would take the json that an earlier run left in `output_dir`, whatever the set is by
    now. The checksum in the name is of the dicts and the class names.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("json_file") and not metadata.get("json_file_is_made"):
        return
    content = pickle.dumps((DatasetCatalog.get(dataset_name), metadata.get("thing_classes")))
    checksum = hashlib.blake2b(content, digest_size=8).hexdigest()

    def convert(folder: str) -> str:
        path = os.path.join(folder, f"{dataset_name}_{checksum}.json")
        convert_to_coco_json(dataset_name, path)
        return path

    path = in_folder_or_elsewhere(output_dir, convert)
    # Not set(), which refuses a new value.
    vars(metadata).update(json_file=path, json_file_is_made=True)
