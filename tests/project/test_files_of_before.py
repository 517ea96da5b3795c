"""Files written before the package became a tree of folders are read: data/before_the_move."""

import json
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from detectron2.config import get_cfg
from fork_server import run_script
from repository import REPOSITORY, TOOLS
from safetensors.torch import load_file
from stored_files import (
    BEFORE,
    differences,
    digests,
    load,
    noise,
    other_machine,
    write_coco,
    write_tree,
)

import d2_isonet

STEPS, SAVED = 7, 4  # of the whole training; of the stored checkpoint
COMMON = [
    "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", "0", "SEED", "7",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "2", "SOLVER.MAX_EPOCHS", "0", "SOLVER.STEPS", "(3,)",
    "SOLVER.REFERENCE_WORLD_SIZE", "0", "SOLVER.WARMUP_ITERS", "3", "SOLVER.CHECKPOINT_PERIOD", "2",
    "SOLVER.IMS_PER_BATCH", "2", "TEST.EVAL_PERIOD", "2", "DATALOADER.NUM_WORKERS", "0",
]  # fmt: skip
CROPS = ["INPUT.CLASSIFICATION.CROP_SIZE", "32", "INPUT.CLASSIFICATION.RESIZE", "36"]
PRETRAINING = [
    *COMMON, *CROPS, "MODEL.WEIGHTS", "", "SOLVER.EMA_DECAY", "0.9", "MODEL.RESNETS.DEPTH", "8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS", "2", "MODEL.CLASSIFIER.DROPOUT", "0.4",
    "INPUT.CLASSIFICATION.MIXUP_ALPHA", "0.7", "SOLVER.OPTIMIZER", "Adam",
    "SOLVER.BASE_LR", "0.01", "TEST.BEST_METRIC", "classification/top1",
]  # fmt: skip
DETECTION = [
    *COMMON, "MODEL.WEIGHTS", str(BEFORE / "weights" / "backbone.pth"), "SOLVER.EMA_DECAY", "0.9",
    "MODEL.RESNETS.RES2_OUT_CHANNELS", "1", "MODEL.ROI_HEADS.NUM_CLASSES", "1",
    "INPUT.MIN_SIZE_TRAIN", "(48,60)", "INPUT.MIN_SIZE_TEST", "48",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "2", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "50", "MODEL.RPN.POST_NMS_TOPK_TEST", "20",
    "TEST.DETECTIONS_PER_IMAGE", "5", "SOLVER.BASE_LR", "0.02", "TEST.BEST_METRIC", "bbox/AP",
]  # fmt: skip


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    write_coco(root)
    return root


def pretraining(config: str) -> list:
    """The script with its flags; KEY VALUE pairs come last."""
    script, data = TOOLS / "pretrain_imagenet.py", BEFORE / "shards"
    return [script, "--config-file", REPOSITORY / "configs" / config, "--data-root", data]


def detection(coco: Path) -> list:
    """As `pretraining`."""
    config = REPOSITORY / "configs" / "risonet18_c4.yaml"
    words = [REPOSITORY / "train_net.py", "--config-file", config]
    for split in ("train", "val"):
        words += [f"--{split}-json", coco / f"{split}.json", f"--{split}-images", coco / split]
    return words


def run(*words) -> None:
    """Run a script, which must end well."""
    process = run_script(*words)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture(scope="module", params=["detection", "pretraining"])
def runs(request, coco, tmp_path_factory) -> SimpleNamespace:
    """The stored training, resumed to its end and not trained further; and a whole one."""
    task, root = request.param, tmp_path_factory.mktemp(request.param)
    if task == "detection":
        words, opts = detection(coco), DETECTION
    else:
        words, opts = pretraining("cifar/risonet20.yaml"), PRETRAINING
    for name, flags, steps in (
        ("loaded", ["--resume"], SAVED), ("resumed", ["--resume"], STEPS), ("whole", [], STEPS)
    ):  # fmt: skip
        if flags:
            shutil.copytree(BEFORE / task, root / name)
        run(*words, *flags, *opts, "SOLVER.MAX_ITER", str(steps), "OUTPUT_DIR", str(root / name))
    return SimpleNamespace(
        task=task, stored=BEFORE / task, **{p.name: p for p in root.iterdir() if p.is_dir()}
    )


def test_a_stored_checkpoint_is_loaded_whole(runs):
    stored, again = load(runs.stored / "model_0000003.pth"), load(runs.loaded / "model_final.pth")
    assert again["iteration"] == again["trainer"]["iteration"] == SAVED - 1
    assert len(again["trainer"]["_trainer"]["optimizer"]["state"]) > 20
    assert set(again["trainer"]["hooks"]) == {"LRScheduler", "WeightAveraging", "BestCheckpoint"}
    assert differences(stored, again) == []


def test_a_resumed_training_is_the_whole_one(runs):
    tolerance = 1e-2 if other_machine() else 0.0  # the first steps are of the machine that wrote
    for name in ("model_final.pth", "model_final_ema.pth"):
        resumed, whole = load(runs.resumed / name), load(runs.whole / name)
        parts = ("model",) if tolerance else whole
        assert differences(*({p: x[p] for p in parts} for x in (resumed, whole)), tolerance) == []
    history = json.loads((runs.resumed / "model_best.json").read_text())["history"]
    assert history[:2] == json.loads((runs.stored / "model_best.json").read_text())["history"]
    assert [iteration for iteration, _ in history] == [1, 3, 5, 6]


def test_every_run_on_the_same_machine_has_the_bits_of_before(runs):
    difference = other_machine()
    if difference:
        pytest.skip(f"other bits are right on another machine: {difference}")
    expected = json.loads((BEFORE / "digests.json").read_text())[runs.task]
    assert digests(runs.whole) == expected
    assert digests(runs.resumed) == expected


def test_a_resumed_run_adds_to_the_stored_records(runs):
    stored, now = (json.loads((x / "runs.json").read_text()) for x in (runs.stored, runs.resumed))
    assert now[: len(stored)] == stored and now[-1]["kind"] == "resumed training"
    before, lines = (
        (folder / "metrics.json").read_text().splitlines() for folder in (runs.stored, runs.resumed)
    )
    # the resumed run repeats the steps after the checkpoint
    kept = [line for line in before if json.loads(line)["iteration"] < SAVED]
    assert kept and lines[: len(kept)] == kept and len(lines) > len(kept)


def test_a_report_is_made_of_a_stored_run(tmp_path):
    folders = [BEFORE / "detection", BEFORE / "pretraining"]
    run(TOOLS / "report.py", *folders, "--output", tmp_path / "report.html", "--images", 0)
    page = (tmp_path / "report.html").read_text()
    assert "74bc194" in page and "bbox/AP" in page and "classification/top1" in page


def test_a_stored_checkpoint_of_a_lazy_config_is_loaded_whole(tmp_path):
    shutil.copytree(BEFORE / "lazy", tmp_path / "lazy")
    words = ["--config-file", tmp_path / "lazy" / "config.py", "--resume", "train.max_iter=4"]
    run(TOOLS / "train_lazy.py", *words, f"train.output_dir={tmp_path / 'lazy'}")
    stored = load(BEFORE / "lazy" / "model_0000003.pth")
    assert differences(stored, load(tmp_path / "lazy" / "model_final.pth")) == []


@pytest.mark.parametrize("name", ["backbone.pth", "backbone.safetensors"])
def test_a_training_starts_from_stored_weights(name, tmp_path):
    words = pretraining("imagenet/risonet18.yaml")
    still = ["SOLVER.BASE_LR", "1e-30", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()"]
    opts = [*COMMON, *CROPS, "MODEL.RESNETS.RES2_OUT_CHANNELS", "1", *still]
    run(*words, *opts, "MODEL.WEIGHTS", BEFORE / "weights" / name, "OUTPUT_DIR", str(tmp_path))
    stored, now = load(BEFORE / "weights" / "backbone.pth"), load(tmp_path / "backbone.pth")
    assert differences(stored["model"], now["model"], tolerance=1e-20) == []
    for part in ("architecture", "input", "format_version", "num_classes"):
        assert stored["meta"][part] == now["meta"][part]


def test_stored_weights_are_converted_as_before(tmp_path):
    tensors, safe = BEFORE / "weights" / "backbone.pth", BEFORE / "weights" / "backbone.safetensors"
    script = TOOLS / "convert_safetensors.py"
    run(script, tensors, tmp_path / "new.safetensors")  # whose metadata have no fixed order
    for file in (safe, tmp_path / "new.safetensors"):
        run(script, file, tmp_path / "back.pth")
        assert differences(load(tmp_path / "back.pth"), load(tensors)) == []
        (tmp_path / "back.pth").unlink()
    first, second = (load_file(x) for x in (safe, tmp_path / "new.safetensors"))
    assert len(first) == len(second) == 46 and differences(first, second) == []


def test_the_backbone_that_a_stored_pretraining_left_is_in_its_checkpoint():
    backbone = load(BEFORE / "pretraining" / "backbone.pth")["model"]
    model = load(BEFORE / "pretraining" / "model_0000003.pth")["model"]
    expected = {n.removeprefix("backbone."): x for n, x in model.items() if "linear" not in n}
    assert differences(backbone, expected) == []


def test_weights_of_another_network_are_still_refused():
    with pytest.raises(ValueError, match=r"pretraining/backbone\.pth"):
        d2_isonet.backbone("cifar/risonet20", BEFORE / "pretraining" / "backbone.pth")


def test_a_stored_detector_and_its_config_predict_as_before():
    cfg = get_cfg()
    d2_isonet.add_isonet_config(cfg)
    cfg.merge_from_file(str(BEFORE / "detection" / "config.yaml"))
    cfg.merge_from_list(["MODEL.WEIGHTS", str(BEFORE / "detection" / "model_0000003.pth")])
    predictor = d2_isonet.Predictor(cfg)
    found = predictor(noise(4, 60, 80)[:, :, ::-1])["instances"]
    expected = json.loads((BEFORE / "predictions.json").read_text())
    assert predictor.categories.names == expected["categories"] == ["thing"]
    assert len(found) == len(expected["scores"]) == 5
    if not other_machine():
        assert found.scores.tolist() == expected["scores"]
        assert found.pred_boxes.tensor.tolist() == expected["boxes"]


def test_stored_shards_are_known_and_finished(tmp_path):
    tree = write_tree(tmp_path / "tree")
    for name in ("shards", "half"):
        shutil.copytree(BEFORE / "shards", tmp_path / name)
    (tmp_path / "half" / "index.json").unlink()  # as a killed run left it, after its first shard
    (tmp_path / "half" / "train-00001.tar").unlink()
    (tmp_path / "half" / "val-00000.tar").unlink()
    shutil.copy(BEFORE / "shards.partial.jsonl", tmp_path / "half")
    kept = (tmp_path / "half" / "train-00000.tar").stat().st_mtime_ns
    for name in ("shards", "half"):
        output = ["--output", tmp_path / name, "--shard-samples", "3"]
        run(TOOLS / "make_shards.py", tree, *output)
        now = {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        assert now == {file.name: file.read_bytes() for file in (BEFORE / "shards").iterdir()}
    assert (tmp_path / "half" / "train-00000.tar").stat().st_mtime_ns == kept


def test_a_stored_cache_saves_a_second_look_at_images(coco, tmp_path):
    shutil.copytree(coco, tmp_path / "coco")
    for file in (tmp_path / "coco" / "val").iterdir():
        file.write_bytes(file.read_bytes()[:600])  # damaged, which the cache does not know
    words = [TOOLS / "check_dataset.py", "--json", tmp_path / "coco" / "val.json"]
    words += ["--images", tmp_path / "coco" / "val"]
    empty = run_script(*words, FVCORE_CACHE=str(tmp_path / "empty"))
    assert empty.returncode == 1 and "4.png" in empty.stdout
    cache = tmp_path / "kept" / "d2_isonet" / "preflight1.sqlite"
    cache.parent.mkdir(parents=True)
    shutil.copy(BEFORE / "preflight1.sqlite", cache)
    move_cache(cache, tmp_path / "coco" / "val")
    kept = run_script(*words, FVCORE_CACHE=str(tmp_path / "kept"))
    assert kept.returncode == 0, kept.stdout + kept.stderr


def move_cache(cache: Path, images: Path) -> None:
    """Let what is kept of the stored run's validation images count for the files in `images`."""
    with sqlite3.connect(cache) as connection:
        rows = connection.execute("SELECT key FROM kept WHERE key LIKE '%/val/_.png'").fetchall()
        assert len(rows) == 2
        for (key,) in rows:
            file = images / Path(key).name
            stamp = f"{file.stat().st_size}:{file.stat().st_mtime_ns}"
            values = (str(file), stamp, key)
            connection.execute("UPDATE kept SET key = ?, stamp = ? WHERE key = ?", values)
    connection.close()
