"""What a newcomer does with 20 photographs, word by word as the documents have it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents.commands import Command, commands_of
from documents.markdown import Page
from repository import REPOSITORY

pytestmark = pytest.mark.slow
OWN_DATA, EXTEND = (Page(REPOSITORY / "docs" / f"{name}.md") for name in ("own_data", "extend"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder like a clone, with train.json (16 images), val.json (4) and images/."""
    samples = os.environ.get("D2_ISONET_SAMPLES", REPOSITORY.parent / "shared" / "data")
    coco = Path(samples, "coco")
    if not coco.is_dir():
        pytest.skip(f"no sample data in {samples} (set D2_ISONET_SAMPLES)")
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("train_net.py", "tools", "configs", "d2_isonet"):
        (folder / name).symlink_to(REPOSITORY / name)
    write_data(coco, folder)
    return folder


def write_data(coco: Path, folder: Path) -> None:
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    annotated = {a["image_id"] for a in content["annotations"]}
    images = [image for image in content["images"] if image["id"] in annotated][:20]
    (folder / "images").mkdir()
    for split, part in (("train", images[:16]), ("val", images[16:])):
        ids = {image["id"] for image in part}
        objects = [a for a in content["annotations"] if a["image_id"] in ids]
        data = {"images": part, "annotations": objects, "categories": content["categories"]}
        (folder / f"{split}.json").write_text(json.dumps(data))
        for image in part:
            shutil.copy(coco / "train2017" / image["file_name"], folder / "images")


def run(folder: Path, command: Command, *more: str) -> str:
    words = [sys.executable, "-W", "ignore", *command.words[1:], *more]
    env = os.environ | {"PYTHONPATH": f"{folder}:{REPOSITORY}"}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def the_command(page: Page, *parts: str) -> Command:
    (command,) = [c for c in commands_of(page) if all(part in c.words for part in parts)]
    return command


def test_the_data_are_checked(folder):
    said = run(folder, the_command(OWN_DATA, "tools/check_dataset.py", "--annotations"))
    assert "16 of 16 image files looked at" in said and "0 errors" in said


def test_a_detector_is_trained_and_evaluated(folder):
    said = run(folder, the_command(OWN_DATA, "train_net.py", "SOLVER.MAX_ITER"))
    assert (folder / "output" / "try" / "model_final.pth").is_file()
    assert "Evaluation results for own_val" in said or "copypaste: Task: segm" in said


def test_a_detector_is_trained_with_an_activation_of_their_own(folder):
    blocks = [block.text for block in EXTEND.blocks if block.language == "python"]
    (folder / "mish.py").write_text(blocks[0])
    (script,) = [text for text in blocks if text.startswith("# my_train.py")]
    (folder / "my_train.py").write_text(script)
    tried = the_command(OWN_DATA, "train_net.py", "SOLVER.MAX_ITER").words
    first = tried.index("MODEL.WEIGHTS")
    data, pairs = tried[tried.index("--train-annotations") : first], tried[first:-1]
    words = the_command(EXTEND, "my_train.py").words
    own = words.index("MODEL.ISONET.ACTIVATION")
    command = Command((*words[:own], *data, *words[own:]), 0)
    run(folder, command, *pairs, "output/mish", "MODEL.MASK_ON", "False")
    assert "ACTIVATION: Mish" in (folder / "output" / "mish" / "config.yaml").read_text()
    assert (folder / "output" / "mish" / "model_final.pth").is_file()
