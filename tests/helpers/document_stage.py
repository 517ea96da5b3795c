"""A folder like a clone with all that the commands of the documents name, in miniature."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from author_weights import random_weights
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image
from repository import REPOSITORY
from shard_sets import write_images

# What a run is made small with, by the script. Pairs come last, so that they win.
PAIRS = {
    "train_net.py": (
        "MODEL.DEVICE cpu SOLVER.MAX_ITER 1 SOLVER.STEPS () SOLVER.IMS_PER_BATCH 2 "
        "SOLVER.REFERENCE_WORLD_SIZE 0 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 "
        "DATALOADER.NUM_WORKERS 0"
    ),
    "tools/pretrain_imagenet.py": (
        "MODEL.DEVICE cpu SOLVER.MAX_EPOCHS 0 SOLVER.MAX_ITER 1 SOLVER.STEPS () "
        "SOLVER.IMS_PER_BATCH 2 SOLVER.REFERENCE_WORLD_SIZE 0 DATALOADER.NUM_WORKERS 0 "
        "INPUT.CLASSIFICATION.CROP_SIZE 32 INPUT.CLASSIFICATION.RESIZE 36"
    ),
    "tools/train_lazy.py": (
        "train.device=cpu train.max_iter=1 dataloader.train.total_batch_size=2 "
        "dataloader.train.num_workers=0 dataloader.test.num_workers=0"
    ),
    "tools/export_model.py": (
        "MODEL.DEVICE cpu INPUT.MIN_SIZE_TEST 64 MODEL.CLASSIFIER.NUM_CLASSES 10 "
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.005"
    ),
    "tools/quickstart.py": (
        "--source shapes SOLVER.MAX_EPOCHS=0 SOLVER.MAX_ITER=2 SOLVER.STEPS=() MODEL.DEVICE=cpu"
    ),
    "tools/demo.py": "--overwrite",  # of what another page's command has written
    "tools/evaluate_robustness.py": "--num-images 4 --effort-images 2 --iterations 2",
    "tools/benchmark.py": "--quick --repetitions 1 --output output/benchmark",
    "tools/analyze_isometry.py": "--frequencies 2",
}
SCRIPTS = {  # what `d2-isonet COMMAND` is run as
    "train": "train_net.py",
    "pretrain": "tools/pretrain_imagenet.py",
    "train-lazy": "tools/train_lazy.py",
    "check-data": "tools/check_dataset.py",
    "show-data": "tools/visualize_data.py",
    "export": "tools/export_model.py",
    "isometry": "tools/analyze_isometry.py",
    "robustness": "tools/evaluate_robustness.py",
    "convert": "tools/convert_isonet_weights.py",
    "make-shards": "tools/make_shards.py",
}
# Before a command that has the words on the left, the one on the right is run.
PRETRAIN = "python tools/pretrain_imagenet.py --config-file configs/imagenet/"
TRAIN = "python train_net.py --config-file configs/"
NEEDS = {
    r"imagenet/risonet50/|risonet50_(c4|dc5|fpn)\.|configs/<name>|FILE| backbone\.": (
        f"{PRETRAIN}risonet50.yaml --num-gpus 8"
    ),
    r"output/risonet50_c4": f"{TRAIN}risonet50_c4.yaml --num-gpus 8",
    r"configs/resnet50_c4": f"{PRETRAIN}resnet50.yaml --num-gpus 8",
    r"output/resnet50_c4": f"{TRAIN}resnet50_c4.yaml --num-gpus 8",
    r"output/risonet50_fpn|demo.py --config-file FILE": f"{TRAIN}risonet50_fpn.yaml --num-gpus 8",
    r"output/quickstart": "python tools/quickstart.py --seeds 3",
    r"output/cifar/cnn9_tanh": (
        "python tools/pretrain_imagenet.py --config-file configs/cifar/cnn9_tanh.yaml "
        "--data-root FOLDER"
    ),
    r"output/export/detector": (
        "python tools/export_model.py --config-file output/risonet50_fpn/config.yaml "
        "--weights output/risonet50_fpn/model_final.pth"
    ),
    r"backbone.safetensors backbone.pth": (
        "python tools/convert_safetensors.py backbone.pth backbone.safetensors"
    ),
    r"pretrain.*/data/imagenet_shards": (
        "python tools/make_shards.py /data/imagenet --output /data/imagenet_shards --workers 8"
    ),
}


class Stage:
    """Runs commands of the documents in its folder, each once, and those they build on before."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._done: dict[tuple[str, ...], subprocess.CompletedProcess] = {}
        for name in ("train_net.py", "tools", "configs", "d2_isonet", "docs", "Makefile"):
            (folder / name).symlink_to(REPOSITORY / name)
        shutil.copy(REPOSITORY / "RESULTS.md", folder)
        write_coco(folder / "data" / "coco")
        write_own_data(folder)
        write_images(folder / "data" / "imagenet", {f"n{i:08}": 2 for i in range(10)})
        write_images(folder / "tree", {"cat": 4, "ship": 4})
        write_weights(folder)

    def run(self, text: str, words: tuple[str, ...]) -> subprocess.CompletedProcess:
        """The ended process of the command, made small."""
        if words[0] == "d2-isonet":
            command = words[1] if len(words) > 1 else ""
            script = SCRIPTS.get(command, f"tools/{command}.py")
            words = ("python", script, *words[2:]) if command else ("python", "-m", "d2_isonet")
            return self.run(" ".join(words), words)
        for pattern, needed in NEEDS.items():
            if re.search(pattern, text) and text != needed:
                done = self.run(needed, tuple(needed.split()))
                assert done.returncode == 0, (
                    f"{needed}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
                )
        small = tuple(self._smaller(words))
        if small not in self._done:
            self._done[small] = self._run(small)
        return self._done[small]

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess:
        path = os.pathsep.join(
            filter(None, [str(self.folder), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        )
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONWARNINGS": "ignore",
            "DETECTRON2_DATASETS": str(self.folder / "data"),
        }
        return subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=3600
        )

    def _smaller(self, words: tuple[str, ...]) -> list[str]:
        """The command with what it leaves to the reader filled in, on one process, small."""
        text = " ".join(words)
        for pattern, value in self._filled_in(text).items():
            text = re.sub(pattern, value, text)
        small = text.split(" ")
        script = small[1] if small[0] == "python" else ""
        pairs = PAIRS.get(script, "").split()
        if "SOLVER.ACCUMULATE_STEPS" in small:  # in as many parts
            pairs[pairs.index("SOLVER.IMS_PER_BATCH") + 1] = "16"
        if small[0] == "python":
            small[0] = sys.executable
        return [*small, *pairs]

    def _filled_in(self, text: str) -> dict[str, str]:
        """Regular expressions of what a reader would replace, and its replacement."""
        config = "imagenet/risonet50" if "pretrain_imagenet.py" in text else "risonet50_fpn"
        detector = "output/risonet50_fpn"
        return {
            r" --num-gpus 8| --seeds 3": "",
            r" --device cuda": "",
            r" --source shapes": "",  # as PAIRS has it
            r"configs/imagenet/<name>": "configs/imagenet/risonet18",
            r"configs/cifar/<name>": "configs/cifar/risonet20",
            r"configs/<name>": "configs/risonet50_fpn",
            r"--data-root FOLDER": "--data-root tree",
            r"--images FOLDER": "--images photos",
            r"--config-file FILE --weights FILE": (
                f"--config-file {detector}/config.yaml --weights {detector}/model_final.pth"
            ),
            r"--timm resnet50 --weights FILE": "--timm resnet50 --weights resnet50.pth",
            r"--config-file FILE": f"--config-file configs/{config}.yaml",
            r"([ =])/data/": rf"\1{self.folder}/data/",
        }


def picture(random: np.random.RandomState, height: int = 48, width: int = 64) -> Image.Image:
    return Image.fromarray(random.randint(0, 256, (height, width, 3), dtype=np.uint8))


def write_coco(root: Path) -> None:
    """coco_2017_train (4 images) and coco_2017_val (2) in COCO's layout."""
    for split, count in (("train", 4), ("val", 2)):
        write_split(root / f"{split}2017", root / f"annotations/instances_{split}2017.json", count)


def write_own_data(folder: Path) -> None:
    """train.json, val.json and images/; photos/ and photo.jpg."""
    write_split(folder / "images", folder / "train.json", 4)
    write_split(folder / "images", folder / "val.json", 2, first=4)
    shutil.copytree(folder / "images", folder / "photos")
    shutil.copy(folder / "images" / "0.jpg", folder / "photo.jpg")


def write_split(images: Path, file: Path, count: int, first: int = 0) -> None:
    """`count` images with two boxes each, of COCO's categories."""
    random = np.random.RandomState(first)
    things = [c for c in COCO_CATEGORIES if c["isthing"]]
    listed, objects = [], []
    images.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(exist_ok=True)
    for i in range(first, first + count):
        picture(random).save(images / f"{i}.jpg")
        listed.append({"id": i, "file_name": f"{i}.jpg", "height": 48, "width": 64})
        for x, category in ((4, things[i]["id"]), (36, things[-1]["id"])):
            polygon = [x, 8, x + 20, 8, x + 20, 40, x, 40]
            objects.append({"id": len(objects) + 1, "image_id": i, "category_id": category,
                            "bbox": [x, 8, 20, 32], "area": 640, "iscrowd": 0,
                            "segmentation": [polygon]})  # fmt: skip
    content = {"images": listed, "annotations": objects, "categories": things}
    file.write_text(json.dumps(content))


def write_weights(folder: Path) -> None:
    """Those of the authors' (RISO18.pt, RISO50.pt), of torchvision and timm (resnet50.pth), and
    backbone.pth of a pretraining here.
    """
    import torchvision

    for depth in (18, 50):
        torch.save(random_weights("risonet", depth, 1000), folder / f"RISO{depth}.pt")
    (folder / "backbone.pth").symlink_to("output/imagenet/risonet50/backbone.pth")
    torch.save(torchvision.models.resnet50().state_dict(), folder / "resnet50.pth")
