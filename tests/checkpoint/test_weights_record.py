"""The record of a weights file: which networks it distinguishes, and what old records mean."""

import copy
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import build_checkpointer, describe, save_backbone
from d2_isonet.checkpoint.matching import meta_differences
from d2_isonet.checkpoint.reading import WeightsError
from d2_isonet.config.loading import load_config
from d2_isonet.preflight.files import weights_finding

CPU = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", ""]


def detection_config(name: str, *opts: str):
    return load_config(f"configs/{name}.yaml", [*CPU, *opts])


def test_differences_that_change_nothing_are_none():
    expected = describe(detection_config("risonet18_dc5", "MODEL.RESNETS.NORM", "FrozenBN"))
    found = copy.deepcopy(expected)
    found["architecture"].update(norm="BN", width_per_group=32, stride_in_1x1=True)
    assert meta_differences(found, expected) == []


def test_what_only_bottlenecks_use_is_no_difference_in_a_network_for_small_images():
    expected = describe(load_config("configs/cifar/resnet56.yaml", CPU))
    found = copy.deepcopy(expected)
    found["architecture"].update(width_per_group=32, stride_in_1x1=True)
    assert meta_differences(found, expected) == []


def old_record(cfg) -> dict:
    """A record without these keys, as older versions wrote it."""
    record = copy.deepcopy(describe(cfg))
    for key in ("backbone", "block", "small_images", "conv", "norm_groups"):
        record["architecture"].pop(key, None)
    return record


GN = ["MODEL.RESNETS.NORM", "GN"]


@pytest.mark.parametrize(
    ("written", "asked", "difference"),
    [
        ([], [], None),
        ([], ["MODEL.ISONET.CONV", "Decoupled"], "conv: 'Conv2d' in the file, 'Decoupled'"),
        ([], ["MODEL.ISONET.BLOCK", "modified"], "block: 'residual' in the file, 'modified'"),
        ([], ["MODEL.ISONET.SMALL_IMAGES", "True"], "small_images: False in the file, True"),
        (GN, GN, None),
        (GN, [*GN, "MODEL.ISONET.NORM_GROUPS", "8"], "norm_groups: 32 in the file, 8"),
    ],
)
def test_an_old_record_means_what_there_was_before(written, asked, difference):
    record = old_record(detection_config("risonet18_dc5", *written))
    found = meta_differences(record, describe(detection_config("risonet18_dc5", *asked)))
    assert len(found) == (difference is not None)
    assert not found or difference in found[0]


NARROW = ["MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8"]


def classifier_config(name: str, *opts: str):
    cfg = load_config(f"configs/{name}.yaml", [*CPU, *NARROW, *opts])
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 3
    return cfg


def write_classifier(path, name: str, record=describe, opts=()):
    """Write backbone.pth of an untrained network with that record; return its tensors."""
    cfg = classifier_config(name, *opts)
    tensors = build_model(cfg).backbone.state_dict()
    save_backbone(path, tensors, record(cfg))
    return tensors


def test_an_old_file_of_an_ordinary_network_is_no_decoupled_one(tmp_path):
    write_classifier(tmp_path / "backbone.pth", "imagenet/decoupled18_baseline", old_record)
    cfg = classifier_config("imagenet/decoupled18_tanh", "MODEL.DECOUPLED.MAGNITUDE", "Sphere")
    with pytest.raises(WeightsError, match="conv: 'Conv2d' in the file, .*FROM_CONV2D True"):
        build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "backbone.pth"), [])


@pytest.mark.parametrize(
    ("file", "asked", "opts", "message"),
    [
        ("cifar/cnn9_baseline", "cifar/resnet20", (), "backbone: 'cnn9' in the file, 'resnet'"),
        ("cifar/resnet20", "cifar/cnn9_baseline", (), "backbone: 'resnet' in the file, 'cnn9'"),
        (
            *("cifar/cnn9_tanh", "cifar/cnn9_tanh", ("MODEL.DECOUPLED.MAGNITUDE", "Ball")),
            "magnitude: 'Tanh' in the file, 'Ball'",
        ),
    ],
)
def test_a_cnn9_and_a_resnet_are_told_apart_by_their_records(file, asked, opts, message, tmp_path):
    write_classifier(tmp_path / "backbone.pth", file)
    cfg = classifier_config(asked, *opts)
    with pytest.raises(WeightsError, match=message):
        build_checkpointer(cfg, build_model(cfg)).load(str(tmp_path / "backbone.pth"), [])


# Every tensor that only a decoupled convolution has.
FROM_CONV2D = ["MODEL.DECOUPLED.FROM_CONV2D", "True", "MODEL.DECOUPLED.RADIUS", "4.0"]
FROM_CONV2D += ["MODEL.DECOUPLED.ANGULAR", "sigmoid", "MODEL.DECOUPLED.SIGMOID_K_LEARNED", "True"]


@pytest.mark.parametrize("record", [describe, old_record])
def test_a_decoupled_network_starts_from_an_ordinary_one_where_it_is_asked(record, tmp_path):
    path = tmp_path / "backbone.pth"
    ordinary = write_classifier(path, "imagenet/decoupled18_baseline", record)
    cfg = classifier_config("imagenet/decoupled18_tanh", *FROM_CONV2D)
    model = build_model(cfg)
    build_checkpointer(cfg, model).load(str(path), [])
    arrived = model.backbone.state_dict()
    assert all(torch.equal(arrived[name], tensor) for name, tensor in ordinary.items())
    kept = {name: x for name, x in arrived.items() if name not in ordinary}
    values = {"radius": 2.0, "running_norm": 1.0, "num_batches_tracked": 0, "sigmoid_k": 0.7}
    assert {name.rsplit(".")[-1] for name in kept} == set(values)
    assert all(bool((x == values[name.rsplit(".")[-1]]).all()) for name, x in kept.items())


def test_the_biases_of_an_ordinary_network_without_norm_are_left_out_and_named(tmp_path, caplog):
    path = tmp_path / "backbone.pth"
    no_bn = ("MODEL.RESNETS.NORM", "")
    ordinary = write_classifier(path, "imagenet/decoupled18_baseline", opts=no_bn)
    cfg = classifier_config("imagenet/decoupled18_tanh_no_bn", *FROM_CONV2D[:2])
    model = build_model(cfg)
    with caplog.at_level("WARNING", logger="d2_isonet.checkpoint.matching"):
        build_checkpointer(cfg, model).load(str(path), [])
    arrived = model.backbone.state_dict()
    biases = {name for name in ordinary if name not in arrived}
    assert biases and all(name.endswith(".bias") for name in biases)
    assert all(torch.equal(arrived[n], x) for n, x in ordinary.items() if n not in biases)
    assert any(f"{len(biases)} biases of {path} are left out" in m for m in caplog.messages)


def test_a_start_from_an_ordinary_network_needs_its_weights():
    cfg = classifier_config("imagenet/decoupled18_tanh", *FROM_CONV2D[:2], "MODEL.WEIGHTS", "")
    args = SimpleNamespace(eval_only=False, resume=False, trust_pickle=False)
    with pytest.raises(ValueError, match="FROM_CONV2D is True, but MODEL.WEIGHTS is ''"):
        weights_finding(cfg, args, None)


@pytest.mark.parametrize("missing", ["res3.0.conv2.weight", "res4.1.conv1.norm.running_var"])
def test_every_other_tensor_must_load_from_an_ordinary_network(missing, tmp_path):
    path = tmp_path / "backbone.pth"
    tensors = dict(write_classifier(path, "imagenet/decoupled18_baseline"))
    del tensors[missing]
    save_backbone(path, tensors, describe(classifier_config("imagenet/decoupled18_baseline")))
    cfg = classifier_config("imagenet/decoupled18_tanh", *FROM_CONV2D)
    with pytest.raises(WeightsError, match=f"1 tensors would keep .*\n.*{missing}: not in the"):
        build_checkpointer(cfg, build_model(cfg)).load(str(path), [])


def test_a_decoupled_file_must_bring_its_radii_also_where_an_ordinary_one_need_not(tmp_path):
    path = tmp_path / "backbone.pth"
    cfg = classifier_config("imagenet/decoupled18_tanh", "MODEL.DECOUPLED.FROM_CONV2D", "True")
    tensors = build_model(cfg).backbone.state_dict()
    tensors.pop("res2.0.conv1.radius")
    save_backbone(path, tensors, describe(cfg))
    with pytest.raises(WeightsError, match="res2.0.conv1.radius: not in the file"):
        build_checkpointer(cfg, build_model(cfg)).load(str(path), [])


def test_an_ordinary_network_is_not_evaluated_as_a_decoupled_one(tmp_path):
    cfg = classifier_config("imagenet/decoupled18_baseline", "OUTPUT_DIR", str(tmp_path))
    build_checkpointer(cfg, build_model(cfg)).save("whole")
    cfg = classifier_config("imagenet/decoupled18_tanh", *FROM_CONV2D)
    model = build_model(cfg)
    build_checkpointer(cfg, model).load(str(tmp_path / "whole.pth"), [])
    with pytest.raises(WeightsError, match="conv: 'Conv2d' in the file"):
        build_checkpointer(cfg, model, strict=True).load(str(tmp_path / "whole.pth"), [])
