"""LazyConfig: the models of the yaml files, and training with penalty and validated weights."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from config_files import CONFIGS, config, model
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_backbone

import d2_isonet
from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer, describe, save_backbone
from d2_isonet.checkpoint.reading import WeightsError
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.engine.lazy_training import evaluate, load_lazy_config, train
from d2_isonet.utils import compat

LAZY = sorted(path for path in (CONFIGS / "lazy").glob("*.py") if path.stem != "recipe")


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def small(path: Path, output, json_file, images):
    """The config with four small images and two iterations."""
    register_coco_files("lazy_set", str(json_file), str(images))
    cfg = LazyConfig.load(str(path))
    cfg.train.update(
        device="cpu", max_iter=2, init_checkpoint="", output_dir=str(output), log_period=1
    )
    cfg.dataloader.train.update(total_batch_size=2, num_workers=0)
    cfg.dataloader.test.num_workers = 0
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = "lazy_set"
    for mapper in (cfg.dataloader.train.mapper, cfg.dataloader.test.mapper):
        mapper.augmentations[0].update(short_edge_length=48, max_size=64)
    cfg.model.proposal_generator.update(
        batch_size_per_image=16, pre_nms_topk=[20, 20], post_nms_topk=[10, 10]
    )
    cfg.model.roi_heads.update(batch_size_per_image=4, num_classes=3)
    Path(output).mkdir(exist_ok=True)
    return cfg


@by_name(LAZY)
def test_it_is_the_model_of_the_yaml_with_its_optimizer(path):
    twin = CONFIGS / f"{path.stem.removeprefix('mask_rcnn_')}.yaml"
    cfg = LazyConfig.load(str(path))
    with torch.device("meta"):
        lazy = instantiate(cfg.model)
    shapes = {name: tuple(x.shape) for name, x in lazy.state_dict().items()}
    assert shapes == {name: tuple(x.shape) for name, x in model(twin).state_dict().items()}
    trained = {name for name, p in lazy.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model(twin).named_parameters() if p.requires_grad}
    asked = config(twin)
    assert list(cfg.model.pixel_mean) == asked.MODEL.PIXEL_MEAN
    assert cfg.model.input_format == cfg.dataloader.train.mapper.image_format == "RGB"
    assert cfg.optimizer.lr == asked.SOLVER.BASE_LR and cfg.train.max_iter == asked.SOLVER.MAX_ITER
    assert cfg.regularizer.coeff == asked.SOLVER.ORTHO_COEFF


def test_shifts_do_not_decay_and_scales_are_slow(tmp_path, coco_files):
    cfg = small(LAZY[-1], tmp_path / "run", *coco_files)
    network = instantiate(cfg.model)
    cfg.optimizer.params.model = network
    groups = {id(p): g for g in instantiate(cfg.optimizer).param_groups for p in g["params"]}
    block = network.backbone.bottom_up.res4[0]
    assert groups[id(block.activation.shift)]["weight_decay"] == 0
    assert groups[id(block.residual_scale)]["lr"] == 0.001
    assert groups[id(block.conv1.weight)]["lr"] == 0.01


@pytest.mark.slow
@by_name(LAZY)
def test_it_trains_evaluates_and_goes_on(path, tmp_path, coco_files):
    cfg = small(path, tmp_path / "run", *coco_files)
    assert "bbox" in train(cfg)
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    assert "loss_ortho" in lines[0] and lines[0]["total_loss"] > 0
    cfg.train.max_iter = 3
    train(cfg, resume=True)
    assert (tmp_path / "run" / "model_final.pth").is_file()
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    assert [x["iteration"] for x in lines if "total_loss" in x] == [0, 1, 2]
    cfg.train.init_checkpoint = str(tmp_path / "run" / "model_final.pth")
    assert "segm" in evaluate(cfg)


@pytest.mark.slow
def test_its_backbone_comes_from_a_pretraining_and_from_no_other_network(tmp_path, coco_files):
    cfg = small(LAZY[-1], tmp_path / "run", *coco_files)
    cfg.train.max_iter = 1
    for name in ("risonet50", "risonet18"):
        asked = d2_isonet.get_config(f"imagenet/{name}")
        save_backbone(tmp_path / f"{name}.pth", build_backbone(asked).state_dict(), describe(asked))
    cfg.train.init_checkpoint = str(tmp_path / "risonet50.pth")
    train(cfg)
    trained = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["model"]
    given = torch.load(tmp_path / "risonet50.pth", weights_only=True)["model"]
    frozen = "stem.conv1.weight"
    assert torch.equal(trained[f"backbone.bottom_up.{frozen}"], given[frozen])
    cfg.train.init_checkpoint = str(tmp_path / "risonet18.pth")
    with pytest.raises(WeightsError, match="does not fit the model"):
        train(cfg)


def arguments(file, *opts: str) -> Namespace:
    return Namespace(config_file=str(file), opts=list(opts), eval_only=False, resume=False)


def test_a_config_is_loaded_with_its_pairs(tmp_path):
    path = d2_isonet.get_config_file("lazy/mask_rcnn_risonet50_fpn.py")
    output = f"train.output_dir={tmp_path / 'run'}"
    cfg = load_lazy_config(arguments(path, output, "optimizer.lr=0.5"))
    assert cfg.train.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert cfg.optimizer.lr == 0.5
    assert cfg.optimizer.params.base_lr == 0.5
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert cfg.dataloader.evaluator.output_dir == f"{tmp_path / 'run'}/inference"


def test_what_is_no_lazy_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no LazyConfig .*yaml is for d2-isonet train"):
        load_lazy_config(arguments("configs/risonet50_c4.yaml"))
    with pytest.raises(FileNotFoundError, match="there is no file /.*none.py"):
        load_lazy_config(arguments(tmp_path / "none.py"))
    (tmp_path / "half.py").write_text("model = dict(a=1)\n")
    with pytest.raises(
        ValueError, match="half.py has no dataloader, optimizer, lr_multiplier, tra"
    ):
        load_lazy_config(arguments(tmp_path / "half.py"))


def test_a_detectron2_without_its_zoo_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(compat.detectron2, "__file__", str(tmp_path / "detectron2" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="has no config common/train.py: install it again"):
        compat.zoo_config("common/train.py")


def test_random_weights_are_not_evaluated(tmp_path, coco_files):
    cfg = small(LAZY[-1], tmp_path / "run", *coco_files)
    with pytest.raises(ValueError, match="would evaluate random weights"):
        evaluate(cfg)


def test_weights_of_other_classes_are_refused(tmp_path, coco_files):
    cfg = small(LAZY[-1], tmp_path / "run", *coco_files)
    saver = ISONetCheckpointer(instantiate(cfg.model), str(tmp_path / "run"))
    for name, names in ("moved", ["tree", "cat", "ship"]), ("other", ["a", "b", "c"]):
        saver.expected_meta = {"categories": {"names": names, "ids": [3, 7, 9]}}
        saver.save(name, tag=False)
    for name, message in (
        ("moved", "in another order"),
        ("other", "a, b, c, and data set 'lazy_set'"),
    ):
        cfg.train.init_checkpoint = str(tmp_path / "run" / f"{name}.pth")
        with pytest.raises(WeightsError, match=message):
            evaluate(cfg)


def test_an_evaluation_leaves_config_yaml_as_it_is(tmp_path):
    (tmp_path / "config.yaml").write_text("of the training")
    path = d2_isonet.get_config_file("lazy/mask_rcnn_risonet50_fpn.py")
    args = arguments(path, f"train.output_dir={tmp_path}")
    args.eval_only = True
    load_lazy_config(args)
    assert (tmp_path / "config.yaml").read_text() == "of the training"
