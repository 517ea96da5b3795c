"""Every detector loads backbone.pth, and every mismatch is refused."""

import copy
import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import (
    ISONetCheckpointer,
    build_checkpointer,
    describe,
    save_backbone,
)
from d2_isonet.checkpoint.reading import WeightsError
from d2_isonet.config.loading import load_config
from d2_isonet.modeling.stages import STAGES, stage_of

CPU = ["MODEL.DEVICE", "cpu", "MODEL.ROI_BOX_HEAD.FC_DIM", "16", "OUTPUT_DIR", ""]


def detection_config(name: str, *opts: str):
    return load_config(f"configs/{name}.yaml", [*CPU, *opts])


def randomized_backbone(depth: int):
    """A classifier's cfg and backbone with no two tensors alike."""
    cfg = load_config(f"configs/imagenet/risonet{depth}.yaml", CPU)
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 5
    backbone = build_model(cfg).backbone
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter)
    return cfg, backbone


def write(path, depth: int = 18, **changes):
    cfg, backbone = randomized_backbone(depth)
    meta = copy.deepcopy(describe(cfg))
    for key, value in changes.items():
        section = "input" if key in meta["input"] else "architecture"
        meta[section][key] = value
    save_backbone(path, backbone.state_dict(), meta)
    return backbone.state_dict()


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("head", ["c4", "dc5", "fpn"])
def test_every_tensor_of_the_pretrained_backbone_arrives(depth, head, tmp_path, caplog):
    pretrained = write(tmp_path / "backbone.pth", depth)
    cfg = detection_config(f"risonet{depth}_{head}")
    model = build_model(cfg)
    with caplog.at_level(logging.INFO):
        build_checkpointer(cfg, model).load(str(tmp_path / "backbone.pth"), [])
    arrived = model.state_dict()
    for name, tensor in pretrained.items():
        places = [n for n in arrived if n.endswith("." + name) and "mask_head" not in n]
        assert len(places) == 1, name
        assert torch.equal(arrived[places[0]], tensor), name
    table = {line.split()[0]: line.split()[1:3] for line in caplog.text.splitlines() if line}
    for part in ("stem", "res2", "res3", "res4", "res5"):
        count = str(sum(name.startswith(part) for name in pretrained))
        assert table[part] == [count, count]


def test_plain_detectron2_loads_the_file_too(tmp_path):
    pretrained = write(tmp_path / "backbone.pth")
    model = build_model(detection_config("risonet18_c4"))
    DetectionCheckpointer(model).load(str(tmp_path / "backbone.pth"), [])
    assert torch.equal(
        model.state_dict()["roi_heads.res5.0.conv1.weight"], pretrained["res5.0.conv1.weight"]
    )


def test_the_file_holds_tensors_and_plain_types_only(tmp_path):
    write(tmp_path / "backbone.pth")
    content = torch.load(tmp_path / "backbone.pth", weights_only=True)
    assert set(content) == {"model", "matching_heuristics", "meta"}
    assert {stage_of(name) for name in content["model"]} == set(STAGES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 34}, "architecture depth: 34 in the file, 18 in the config"),
        ({"activation": "ReLU"}, "architecture activation: 'ReLU' in the file"),
        ({"shortcut": False}, "architecture shortcut: False"),
        ({"norm": "BN"}, "architecture norm: 'BN' in the file, '' in the config"),
        ({"residual_scale_shape": "channel"}, "residual_scale_shape: 'channel'"),
        ({"format": "BGR"}, "input format: 'BGR' in the file, 'RGB' in the config"),
        ({"pixel_mean": [103.53, 116.28, 123.675]}, "input pixel_mean"),
        ({"pixel_std": [1.0, 1.0, 1.0]}, "input pixel_std"),
    ],
)
def test_a_file_for_another_network_or_other_pixels_is_refused(change, message, tmp_path):
    write(tmp_path / "backbone.pth", **change)
    cfg = detection_config("risonet18_dc5")
    with pytest.raises(WeightsError, match=message):
        build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "backbone.pth"), [])


@pytest.mark.parametrize(
    ("depth", "asked", "message"),
    [(18, 34, "res2.2.conv1.weight: not in the file"), (50, 18, "shape .* in the file")],
)
def test_weights_of_another_depth_are_refused_without_a_meta_record(
    depth, asked, message, tmp_path
):
    _, backbone = randomized_backbone(depth)
    content = {"model": backbone.state_dict(), "matching_heuristics": True}
    torch.save(content, tmp_path / "other.pth")
    cfg = detection_config(f"risonet{asked}_dc5")
    with pytest.raises(WeightsError, match=message):
        build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "other.pth"), [])


def test_a_file_without_the_matching_flag_is_refused_instead_of_training_on_random_weights(
    tmp_path,
):
    _, backbone = randomized_backbone(18)
    torch.save(backbone.state_dict(), tmp_path / "plain.pth")
    cfg = detection_config("risonet18_dc5")
    message = "would keep their random init.*\\n.*there as stem.conv1.weight(.*\\n)*.*matching_heu"
    with pytest.raises(WeightsError, match=message):
        build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "plain.pth"), [])


def test_a_deeper_network_is_not_cut_short(tmp_path):
    # its first blocks have the names and shapes of the shallower one's: all "arrived"
    _, backbone = randomized_backbone(34)
    content = {"model": backbone.state_dict(), "matching_heuristics": True}
    torch.save(content, tmp_path / "deeper.pth")
    cfg = detection_config("risonet18_dc5")
    with pytest.raises(WeightsError, match="have no place in the model.*res2.2.conv1.weight"):
        build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "deeper.pth"), [])


def test_a_stage_that_the_model_has_not_may_stay_in_the_file(tmp_path):
    pretrained = write(tmp_path / "backbone.pth")
    cfg = detection_config("risonet18_c4", "MODEL.META_ARCHITECTURE", "ProposalNetwork")
    model = build_model(cfg)
    build_checkpointer(cfg, model).load(str(tmp_path / "backbone.pth"), [])
    own = model.backbone.state_dict()
    left = {name for name in pretrained if name not in own}
    assert left and {name.split(".")[0] for name in left} == {"res5"}
    for name, value in own.items():
        assert torch.equal(value, pretrained[name]), name


def test_a_question_mark_in_a_name_is_a_part_of_it(tmp_path):
    pretrained = write(tmp_path / "what?.pth")
    cfg = detection_config("risonet18_dc5")
    model = build_model(cfg)
    build_checkpointer(cfg, model).load(str(tmp_path / "what?.pth"), [])
    assert torch.equal(model.backbone.res3[0].conv1.weight, pretrained["res3.0.conv1.weight"])


def test_a_full_load_of_a_pretrained_backbone_asks_for_the_backbone_only(tmp_path):
    pretrained = write(tmp_path / "backbone.pth")
    cfg = detection_config("risonet18_dc5")
    model = build_model(cfg)
    build_checkpointer(cfg, model).load(str(tmp_path / "backbone.pth"))
    assert torch.equal(model.backbone.res3[0].conv1.weight, pretrained["res3.0.conv1.weight"])


def test_weights_of_which_nothing_fits_are_refused_whatever_the_backbone(tmp_path):
    torch.save({"elsewhere.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="2 tensors would keep their random initialization"):
        ISONetCheckpointer(torch.nn.Linear(1, 1)).load(str(tmp_path / "other.pth"), [])


def test_another_programs_checkpoint_is_sent_to_the_converter(tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}, "epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="state_dict, epoch.*d2-isonet convert"):
        ISONetCheckpointer(torch.nn.Linear(1, 1)).load(str(tmp_path / "other.pth"), [])


def test_a_detector_is_not_evaluated_on_other_pixels_than_it_was_trained_on(tmp_path):
    cfg = detection_config("risonet18_dc5", "OUTPUT_DIR", str(tmp_path))
    build_checkpointer(cfg, build_model(cfg)).save("detector")
    build_checkpointer(cfg, build_model(cfg), strict=True).load(str(tmp_path / "detector.pth"))
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(WeightsError, match="'RGB' in the file, 'BGR' in the config"):
        build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "detector.pth"))


def test_a_fine_tuned_detector_may_have_another_head_and_evaluation_may_not(tmp_path):
    source = build_model(detection_config("risonet18_dc5", "MODEL.ROI_HEADS.NUM_CLASSES", "4"))
    DetectionCheckpointer(source, str(tmp_path)).save("detector")
    cfg = detection_config("risonet18_dc5", "MODEL.ROI_HEADS.NUM_CLASSES", "7")
    model = build_model(cfg)
    build_checkpointer(cfg, model).load(str(tmp_path / "detector.pth"), [])
    assert torch.equal(model.backbone.res5[0].conv1.weight, source.backbone.res5[0].conv1.weight)
    with pytest.raises(WeightsError, match=r"cls_score.weight: shape \(5, 16\) in the file, \(8,"):
        build_checkpointer(cfg, model, strict=True).load(str(tmp_path / "detector.pth"), [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>Sign in</html>", "HTML page"),
        (b"PK\x03\x04 half a zip", "truncated"),
        (b"\x80\x04 something", "bare pickle"),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(content, message, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"weights.pth .*{message}"):
        ISONetCheckpointer(torch.nn.Linear(1, 1)).load(str(path), [])


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pth"])
def test_no_pickle_is_executed(name, tmp_path):
    import pickle

    path = tmp_path / name
    if name.endswith(".pkl"):
        path.write_bytes(pickle.dumps(Payload()))
    else:
        torch.save({"model": Payload()}, path)
    with pytest.raises(WeightsError, match="trust-pickle|would run code"):
        ISONetCheckpointer(torch.nn.Linear(1, 1)).load(str(path), [])


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth.*d2-isonet pretrain"):
        ISONetCheckpointer(torch.nn.Linear(1, 1)).load(str(tmp_path / "none.pth"), [])


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write(tmp_path / "backbone.pth")
    before = (tmp_path / "backbone.pth").read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_backbone(tmp_path / "backbone.pth", {}, {"unpicklable": lambda: None})
    assert (tmp_path / "backbone.pth").read_bytes() == before
