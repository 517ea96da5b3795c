"""d2_isonet.backbone: networks, their weights and their pixels, without a cfg."""

import os

import numpy as np
import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from PIL import Image

import d2_isonet
from d2_isonet.checkpoint.checkpointer import build_checkpointer, describe, save_backbone
from d2_isonet.checkpoint.reading import WeightsError
from d2_isonet.data.imagenet import ImageNetMapper
from d2_isonet.hub.backbone import backbone_names
from d2_isonet.hub.networks import Classifier, FeatureMaps

SMALL = "quickstart/small_risonet18"
IMAGES = torch.randn(2, 3, 64, 64)


def classifier_config(*opts: str):
    return d2_isonet.get_config(
        SMALL, ["MODEL.CLASSIFIER.NUM_CLASSES", "5", "OUTPUT_DIR", "", *opts]
    )


@pytest.fixture
def trained(tmp_path):
    """An ImageClassifier with random weights; its backbone.pth and its whole checkpoint."""
    cfg = classifier_config("MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path))
    model = build_model(cfg).eval()
    for parameter in model.parameters():  # zero scales would hide what a block does
        parameter.data += 0.05 * torch.randn_like(parameter)
    save_backbone(
        tmp_path / "backbone.pth",
        model.backbone.state_dict(),
        {**describe(cfg), "num_classes": 5},
    )
    build_checkpointer(cfg, model).save("model_final")
    return model, tmp_path


# ----------------------------------------------------------------- networks


def test_it_is_a_function_though_there_was_a_module_of_that_name():
    assert d2_isonet.backbone.__module__ == "d2_isonet.hub.backbone"
    with pytest.raises(ModuleNotFoundError):
        __import__("d2_isonet.backbone")
    assert callable(d2_isonet.backbone)


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("risonet18", [64, 128, 256, 512], [4, 8, 16, 32]),
        ("fixup18", [64, 128, 256, 512], [4, 8, 16, 32]),
        ("cifar/risonet20", [16, 32, 64], [1, 2, 4]),
        ("cifar/cnn9_tanh", [64, 128, 256], [2, 4, 8]),
    ],
)
def test_feature_maps_are_a_list_from_fine_to_coarse(name, channels, strides):
    net = d2_isonet.backbone(name, features_only=True).eval()
    assert (net.channels, net.strides) == (channels, strides)
    with torch.no_grad():
        shapes = [tuple(x.shape) for x in net(IMAGES)]
    assert shapes == [(2, c, 64 // s, 64 // s) for c, s in zip(channels, strides, strict=True)]


def test_the_names_are_those_of_the_pretraining_configs():
    names = backbone_names()
    assert {"risonet50", "resnet50_gn", "decoupled18_tanh", "cifar/risonet20"} <= set(names)
    assert not any(name.startswith("imagenet/") or name.endswith("_c4") for name in names)


def test_options_change_what_they_say():
    options = {"features_only": True, "out_features": ["res5", "res3"], "output_stride": 16}
    net = d2_isonet.backbone("resnet18", norm="FrozenBN", freeze_at=2, **options)
    assert (net.names, net.strides) == (["res3", "res5"], [8, 16])
    assert type(net.backbone.stem.conv1.norm).__name__ == "FrozenBatchNorm2d"
    frozen = {n.split(".")[1] for n, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "res2"}


def test_a_classifier_has_the_classes_asked_for():
    assert d2_isonet.backbone("cifar/risonet20").linear.out_features == 1000
    net = d2_isonet.backbone("cifar/risonet20", num_classes=10).eval()
    assert net(IMAGES).shape == (2, 10)
    net.reset_classifier(3)
    assert net(IMAGES).shape == (2, 3)
    net.reset_classifier(0)
    assert net(IMAGES).shape == (2, net.num_features) == (2, 64)
    assert d2_isonet.backbone("cifar/risonet20", num_classes=0).eval()(IMAGES).shape == (2, 64)


def test_a_new_head_of_fixup_starts_at_zero():
    net = d2_isonet.backbone("cifar/fixup20", num_classes=4)
    net.reset_classifier(3)
    assert not net.linear.weight.any() and not net.linear.bias.any()


def test_it_trains_by_a_loop_of_plain_pytorch():
    net = d2_isonet.backbone("cifar/risonet20", num_classes=2).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    labels, losses = torch.tensor([0, 1]), []
    images = IMAGES + 2 * labels.view(2, 1, 1, 1)
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_recomputed_blocks_give_the_same_gradients_and_can_be_undone():
    net = d2_isonet.backbone("cifar/risonet20", num_classes=2).eval()
    gradients = []
    for enable in (False, True, True, False):
        net.set_grad_checkpointing(enable)
        net.zero_grad()
        net(IMAGES).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(map(torch.equal, gradients[0] * 3, sum(gradients[1:], [])))
    assert not any("forward" in vars(module) for module in net.modules())


# ----------------------------------------------------------------- weights and pixels


def test_a_whole_checkpoint_gives_the_logits_of_its_model(trained):
    model, folder = trained
    net = d2_isonet.backbone(SMALL, pretrained=folder / "model_final.pth").eval()
    assert net.num_classes == 5
    with torch.no_grad():
        assert torch.equal(net(IMAGES), model.logits(IMAGES))
        features = net.forward_features(IMAGES)
        assert torch.equal(net.forward_head(features), net(IMAGES))
        assert torch.equal(net.forward_head(features, pre_logits=True), features.mean((2, 3)))


def test_a_backbone_gives_its_feature_maps_and_a_head_that_starts_anew(trained):
    model, folder = trained
    path = str(folder / "backbone.pth")
    maps = d2_isonet.backbone(SMALL, pretrained=path, features_only=True).eval()
    net = d2_isonet.backbone(SMALL, pretrained=path).eval()
    with torch.no_grad():
        expected = model.backbone(IMAGES)["res5"]
        assert torch.equal(maps(IMAGES)[-1], expected)
        assert torch.equal(net.forward_features(IMAGES), expected)
    assert net.num_classes == 5 and not torch.equal(net.linear.weight, model.linear.weight)
    assert d2_isonet.backbone(SMALL, pretrained=path, num_classes=9).num_classes == 9


@pytest.mark.parametrize("kind", [FeatureMaps, Classifier])
def test_the_tensors_of_a_file_can_be_loaded_by_hand(kind, trained, caplog):
    model, folder = trained
    net = d2_isonet.backbone(
        SMALL, features_only=kind is FeatureMaps, num_classes=5 * (kind is Classifier) or None
    )
    assert isinstance(net, kind)
    tensors = torch.load(folder / "backbone.pth", weights_only=True)["model"]
    net.load_state_dict(tensors)
    assert torch.equal(net.backbone.res2[0].conv1.weight, model.backbone.res2[0].conv1.weight)
    assert ("the linear layer stays as it was" in caplog.text) == (kind is Classifier)
    net.load_state_dict(torch.load(folder / "model_final.pth", weights_only=True)["model"])
    assert "stem.conv1.weight" in tensors  # the caller's mapping is as it was
    del tensors["res3.0.conv1.weight"]
    with pytest.raises(RuntimeError, match="Missing key.*backbone.res3.0.conv1.weight"):
        net.load_state_dict(tensors)


def test_the_pixels_are_those_of_the_weights(tmp_path):
    cfg = classifier_config(
        "INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", "[100.0, 110.0, 120.0]",
        "MODEL.PIXEL_STD", "[1.0, 2.0, 4.0]",
    )  # fmt: skip
    save_backbone(tmp_path / "b.pth", build_backbone(cfg).state_dict(), describe(cfg))
    net = d2_isonet.backbone(SMALL, pretrained=tmp_path / "b.pth")
    assert net.pixels[:3] == ("BGR", (100, 110, 120), (1, 2, 4))
    assert net.pixels[3:] == (72, 64)
    images = torch.tensor([101, 114, 112], dtype=torch.uint8).view(1, 3, 1, 1)
    assert net.pixels.normalize(images).flatten().tolist() == [1, 2, -2]


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_the_transform_is_that_of_the_evaluation(image_format, tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    net = d2_isonet.backbone(SMALL)
    wanted = net.pixels._replace(format=image_format)
    mapped = ImageNetMapper(False, image_format, 64, 72)({"file_name": str(tmp_path / "x.png")})
    found = wanted.transform()(Image.open(tmp_path / "x.png"))
    assert found.shape == (3, 64, 64)
    assert torch.equal(found, wanted.normalize(mapped["image"]))


# ----------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("risonet51", "'risonet51' is no network; did you mean risonet50"),
        (
            "risonet50_c4",
            "'risonet50_c4' is a detector, no network alone; did you mean .*risonet50",
        ),
        ("risonet20", "did you mean cifar/risonet20"),
        ("zzz", r"is no network; d2_isonet.hub.backbone.backbone_names\(\) lists them"),
    ],
)
def test_an_unknown_network_has_a_neighbour(name, message):
    with pytest.raises(ValueError, match=message):
        d2_isonet.backbone(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "risonet18",
            {"output_stride": 8},
            "output_stride is 8; for risonet18 it must be 32 or 16",
        ),
        ("cifar/risonet20", {"output_stride": 16}, "for cifar/risonet20 it must be left out"),
        ("risonet18", {"out_features": ["res3"]}, "it needs features_only=True"),
        ("risonet18", {"out_features": ["res6"], "features_only": True}, "must be some of .'stem'"),
        ("risonet18", {"norm": "Batch"}, "NORM is 'Batch'; it must be one of"),
    ],
)
def test_an_option_it_has_not_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        d2_isonet.backbone(name, **options)


def test_weights_of_another_network_are_refused(trained):
    path = trained[1] / "backbone.pth"
    with pytest.raises(WeightsError, match="stem_out_channels: 16 in the file, 64 in the config"):
        d2_isonet.backbone("risonet18", pretrained=path)
    with pytest.raises(WeightsError, match="activation: 'SReLU' in the file, 'ReLU' in the config"):
        d2_isonet.backbone("fixup18", pretrained=path)
    with pytest.raises(WeightsError, match="depth: 18 in the file, 34 in the config"):
        d2_isonet.backbone("risonet34", pretrained=path, features_only=True)


def test_weights_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="pretrained: there is no file /.*x.pth"):
        d2_isonet.backbone(SMALL, pretrained=tmp_path / "x.pth")
    (tmp_path / "x.pth").write_text("<html>")
    with pytest.raises(WeightsError, match="x.pth is an HTML page"):
        d2_isonet.backbone(SMALL, pretrained=os.fspath(tmp_path / "x.pth"))
    torch.save([1], tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        d2_isonet.backbone(SMALL, pretrained=tmp_path / "x.pth")


def test_a_strange_record_of_pixels_is_left_to_the_check(trained):
    content = torch.load(trained[1] / "backbone.pth", weights_only=True)
    content["meta"]["input"]["pixel_mean"] = ["a", "b", "c"]
    torch.save(content, trained[1] / "odd.pth")
    with pytest.raises(WeightsError, match="input pixel_mean: .*'a'"):
        d2_isonet.backbone(SMALL, pretrained=trained[1] / "odd.pth")
