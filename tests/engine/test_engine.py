"""The Trainer: one step, resume, several processes, evaluation, and both scripts end to end."""

import json
import re
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from script_arguments import DETECT, PRETRAIN, arguments
from scripts import write_image_tree
from two_convolutions import OwnShareTrainer, toy_config, train, weights

from d2_isonet.commands.pretrain import pretrain
from d2_isonet.commands.train import train as train_detector
from d2_isonet.distributed.launch import launch

PROCESS = {"train": train_detector, "pretrain": pretrain}  # what each process runs


@pytest.mark.parametrize("option", ["CLIP_GRADIENTS.ENABLED False", "CLIP_GRADIENTS.ENABLED True",
                                    "OPTIMIZER Adam"])  # fmt: skip
def test_a_resumed_run_ends_bit_by_bit_where_an_uninterrupted_one_does(option, tmp_path):
    opts = f"SOLVER.{option}".split()
    whole = train(toy_config(tmp_path / "whole", *opts))
    train(toy_config(tmp_path / "parts", *opts, "SOLVER.MAX_ITER", "2"))
    resumed = train(toy_config(tmp_path / "parts", *opts), resume=True)
    assert resumed.start_iter == 2
    for a, b in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_without_optimizer_resumes_and_says_so(tmp_path, caplog):
    train(toy_config(tmp_path, "SOLVER.MAX_ITER", "2"))
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    del content["trainer"]["_trainer"]  # what plain detectron2 v0.6 writes
    torch.save(content, tmp_path / "model_final.pth")
    resumed = train(toy_config(tmp_path), resume=True)
    assert resumed.start_iter == 2
    assert "momentum starts from zero" in caplog.text


@pytest.mark.parametrize(("before", "after"), [("SGD", "Adam"), ("Adam", "SGD")])
def test_a_run_is_not_resumed_with_another_optimizer(before, after, tmp_path):
    train(toy_config(tmp_path, "SOLVER.MAX_ITER", "2", "SOLVER.OPTIMIZER", before))
    message = f"OPTIMIZER is '{after}', but .*model_final.pth was trained with '{before}'"
    trainer = OwnShareTrainer(toy_config(tmp_path, "SOLVER.OPTIMIZER", after))
    with pytest.raises(ValueError, match=message):
        trainer.resume_or_load(resume=True)


@pytest.mark.parametrize("row", ["Decoupled 0.01 1", "Decoupled 0 0", "Conv2d 0.01 0"])
def test_the_penalty_on_decoupled_filters_is_told_once(row, tmp_path, caplog):
    conv, coeff, count = row.split()
    cfg = toy_config(tmp_path, "MODEL.ISONET.CONV", conv, "SOLVER.ORTHO_COEFF", coeff)
    OwnShareTrainer(cfg)
    assert caplog.text.count("ORTHO_COEFF is 0.01 with MODEL.ISONET.CONV 'De") == int(count)


def test_the_penalty_is_in_the_step_and_in_the_log(tmp_path):
    without = train(toy_config(tmp_path / "a", "SOLVER.ORTHO_COEFF", "0.0"))
    with_it = train(toy_config(tmp_path / "b"))
    assert not torch.equal(weights(without)[0], weights(with_it)[0])
    last = json.loads((tmp_path / "b" / "metrics.json").read_text().splitlines()[-1])
    assert last["loss_ortho"] > 0
    assert "loss_ortho" not in (tmp_path / "a" / "metrics.json").read_text()


def test_only_the_newest_checkpoints_are_kept_when_asked(tmp_path):
    opts = ["SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.CHECKPOINT_MAX_TO_KEEP", "2"]
    train(toy_config(tmp_path, *opts))
    files = sorted(p.name for p in tmp_path.glob("model_*.pth"))
    assert files == ["model_0000002.pth", "model_0000003.pth", "model_final.pth"]


def save_weights_of_a_run(output_dir, path) -> None:
    trainer = train(toy_config(output_dir))
    if comm.is_main_process():
        torch.save(weights(trainer), path)


@pytest.mark.usefixtures("fork_server")
def test_a_two_process_run_equals_a_one_process_run(tmp_path):
    launch(save_weights_of_a_run, 2, args=(str(tmp_path / "two"), str(tmp_path / "two.pth")))
    save_weights_of_a_run(tmp_path / "one", tmp_path / "one.pth")
    two, one = (torch.load(tmp_path / f"{n}.pth", weights_only=True) for n in ("two", "one"))
    for a, b in zip(two, one, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.fixture
def image_tree(tmp_path) -> Path:
    return write_image_tree(tmp_path / "classified")


def test_pretraining_learns_and_feeds_a_detector_that_is_evaluated(
    image_tree, coco_files, tmp_path
):

    out = tmp_path / "pretraining"
    results = {}
    asked = arguments(
        "configs/imagenet/risonet18.yaml",
        *PRETRAIN, "OUTPUT_DIR", str(out), data_root=str(image_tree),
    )  # fmt: skip
    pretrain(asked)
    backbone = torch.load(out / "backbone.pth", weights_only=True)
    assert backbone["meta"]["accuracy"]["top1"] == 100
    assert backbone["meta"]["num_classes"] == 2
    assert backbone["meta"]["iteration"] == 12

    asked.eval_only = True
    asked.opts += ["MODEL.WEIGHTS", str(out / "model_final.pth")]
    results = pretrain(asked)
    assert results["classification"]["top1"] == 100

    files = dict(zip(("json", "images"), map(str, coco_files), strict=True))
    own = {f"{split}_{k}": v for split in ("train", "val") for k, v in files.items()}
    detect = arguments(
        "configs/risonet18_dc5.yaml",
        *DETECT, "MODEL.WEIGHTS", str(out / "backbone.pth"), "OUTPUT_DIR", str(tmp_path / "det"),
        **own,
    )  # fmt: skip
    train_detector(detect)
    detect.eval_only = True
    detect.opts[detect.opts.index("MODEL.WEIGHTS") + 1] = str(tmp_path / "det" / "model_final.pth")
    results = train_detector(detect)
    for task in ("bbox", "segm"):
        assert {"AP", "AP50", "AP75", "AP-cat", "AP-tree", "AP-ship"} <= set(results[task])


@pytest.mark.parametrize("checked", ["0", "500"])  # found in training; found before it
@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_an_image_that_breaks_off_is_named(
    command, checked, image_tree, coco_files, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    json_file, images = coco_files
    folder = images if command == "train" else image_tree / "train" / "red"
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    own = {f"{s}_json": str(json_file) for s in ("train", "val")}
    own |= {f"{s}_images": str(images) for s in ("train", "val")}
    configured = {
        "train": arguments("configs/risonet18_dc5.yaml", *DETECT, "MODEL.WEIGHTS", "", **own),
        "pretrain": arguments(
            "configs/imagenet/risonet18.yaml", *PRETRAIN, data_root=str(image_tree)
        ),
    }[command]
    configured.opts += ["OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", "1"]
    configured.opts += ["DATASETS.CHECKED_IMAGES", checked]
    with pytest.raises(SystemExit):
        PROCESS[command](configured)
    message = "error: " + capsys.readouterr().err.rpartition("error: ")[2]
    assert str(folder) in message.splitlines()[-1]
    assert (tmp_path / "out").exists() == (checked == "0")


@pytest.mark.parametrize(
    ("command", "opts", "given", "message"),
    [
        ("train", ["MODEL.WEIGHTS", "nowhere.pth"], {}, "there is no file .*nowhere.pth"),
        ("train", ["MODEL.WEIGHTS", ""], {"eval_only": True}, "would evaluate random weights"),
        ("train", ["SOLVER.IMS_PER_BATCH", "0"], {}, "SOLVER.IMS_PER_BATCH is 0"),
        (
            "train",
            ["SOLVER.REFERENCE_WORLD_SIZE", "8"],
            {},
            "IMS_PER_BATCH is 2, for SOLVER.REFERENCE_WORLD_SIZE 8.*REFERENCE_WORLD_SIZE 0",
        ),
        ("train", ["SOLVER.AMP.PRECISION", "half"], {}, "PRECISION is 'half'"),
        ("train", ["SOLVER.BASE_LRR", "1"], {}, "did you mean SOLVER.BASE_LR?"),
        (
            "train",
            ["MODEL.BACKBONE.NAME", "build_isonet"],
            {},
            "did you mean build_isonet_backbone?",
        ),
        ("train", ["INPUT.CLASSIFICATION.MIXUP_ALPHA", "1.0"], {}, "1.0 with .*RCNN'; only Im"),
        ("train", ["SOLVER.ADVERSARIAL.ATTACK", "PGD"], {}, "ATTACK is 'PGD' with .*set it"),
        ("pretrain", ["SOLVER.ADVERSARIAL.ATTACK", "PGD"], {}, "ATTACK is 'PGD'.*'BIM'"),
        ("pretrain", [], {"data_root": "nowhere"}, "nowhere does not exist"),
        ("pretrain", ["MODEL.CLASSIFIER.NUM_CLASSES", "3"], {}, "NUM_CLASSES is 3, but"),
    ],
)
def test_a_scripts_user_gets_one_clear_message(
    command, opts, given, message, image_tree, coco_files, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    if command == "train":
        files = dict(zip(("json", "images"), map(str, coco_files), strict=True))
        given = {**{f"{s}_{k}": v for s in ("train", "val") for k, v in files.items()}, **given}
        configured = arguments("configs/risonet18_dc5.yaml", *DETECT, **given)
    else:
        given = {"data_root": str(image_tree), **given}
        configured = arguments("configs/imagenet/risonet18.yaml", *PRETRAIN, **given)
    configured.opts += ["OUTPUT_DIR", str(tmp_path / "out"), *opts]
    with pytest.raises(SystemExit):
        PROCESS[command](configured)
    error = capsys.readouterr().err
    assert re.search(f"error: .*{message}", error, re.DOTALL), error
    assert "Traceback" not in error
