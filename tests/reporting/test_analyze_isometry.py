"""d2-isonet isometry: networks of every kind, the files it writes, and what it refuses."""

import json
import math
import re

import pytest
import torch
from browser import chromium, opened  # noqa: F401

from d2_isonet.commands import isometry
from d2_isonet.reporting.isometry.analysis import analyze, as_json
from d2_isonet.reporting.isometry.networks import MODEL_ZOO, network_of
from d2_isonet.reporting.isometry.pictures import histogram_figure, singular_value_figure
from d2_isonet.reporting.isometry.report import make_page, print_analysis

TINY = ["MODEL.RESNETS.STEM_OUT_CHANNELS=4", "MODEL.RESNETS.RES2_OUT_CHANNELS=8",
        "INPUT.CLASSIFICATION.CROP_SIZE=64", "INPUT.CLASSIFICATION.RESIZE=64",
        "INPUT.MIN_SIZE_TEST=64", "INPUT.MAX_SIZE_TEST=64"]  # fmt: skip
RISONET18 = ["--config-file", "configs/imagenet/risonet18.yaml"]
ZOO = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"


FEW = ["--num-images", "1", "--frequencies", "2"]


def analysis(*arguments, opts=TINY):
    words = [*arguments, *FEW, *opts]
    return isometry.analysis_of(isometry.argument_parser().parse_args(words))


def analyzed(*arguments, opts=TINY) -> dict:
    """The content of isometry.json."""
    return as_json(analysis(*arguments, opts=opts))


def conv_named(found: dict, name: str) -> dict:
    return next(conv for conv in found["convolutions"] if conv["name"] == name)


@pytest.fixture(scope="module")
def risonet(tmp_path_factory):
    """(content of isometry.json, its folder)."""
    folder = tmp_path_factory.mktemp("risonet")
    arguments = [*RISONET18, *FEW, "--output", str(folder), *TINY]
    isometry.main(arguments)
    return json.loads((folder / "isometry.json").read_text()), folder


def test_a_new_risonet_is_isometric_but_for_stem_and_strided_openings(risonet):
    found, _ = risonet
    spoilt = {c["name"] for c in found["convolutions"] if c["share_near_one"] < 1}
    assert spoilt == {"stem.conv1", "res3.0.conv1", "res4.0.conv1", "res5.0.conv1"}
    opening = conv_named(found, "res3.0.conv1")
    assert (opening["condition"], opening["smallest"], opening["excess"]) == (None, 0, 8 / 2)
    assert sum(opening["histogram"]["counts"]) == 4 * 16
    assert found["residual_scales"]["res5.1"] == [0] and found["shifts"]["res2"]["mean"] == -1
    assert found["deviations"] == []
    assert [x["name"] for x in found["signals"]][:3] == ["input", "stem", "res2.0"]


def test_pictures_are_written(risonet):
    names = ("singular_values", "histograms", "signals", "shifts", "residual_scales")
    for name in names:
        assert (risonet[1] / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_needs_nothing_else_and_its_table_sorts(risonet, chromium):  # noqa: F811
    with opened(chromium, risonet[1] / "isometry.html") as page:
        assert page.locator("figure.chart img").count() == 5
        loaded = "images => images.every(image => image.complete && image.naturalWidth > 0)"
        assert page.locator("main img").evaluate_all(loaded)
        table = page.locator("table", has_text="condition")
        table.get_by_role("button", name="excess").click()
        assert table.locator("tbody td").first.inner_text() == "res5.0.conv1"
        assert table.locator("td.bad").all_inner_texts() == ["inf"] * 3


@pytest.mark.parametrize(("limit", "kind"), [("10", "info"), ("1.01", "warning")])
def test_tables_are_printed_and_what_explodes_is_reported(limit, kind, capsys):
    found = analysis(*RISONET18, "--limit", limit)
    print_analysis(found)
    printed = capsys.readouterr().out
    assert re.search(r"res3.0.conv1 +16x8 3x3 /2 +0.000 +1.000 +inf +50.0", printed)
    assert f"a factor above {limit} or below" in printed and "NOISE" in printed
    assert bool(found.deviations) == (kind == "warning")
    assert all(line in printed for line in found.deviations)
    assert f'class="note {kind}"' in make_page(found, {}).html()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with model_final.pth, backbone.pth and config.yaml, as a pretraining leaves it."""
    from detectron2.modeling import build_model

    from d2_isonet.checkpoint.checkpointer import build_checkpointer, describe, save_backbone
    from d2_isonet.config.loading import load_config

    folder = tmp_path_factory.mktemp("trained")
    cfg = load_config(RISONET18[1], [*TINY, "MODEL.CLASSIFIER.NUM_CLASSES=3", "MODEL.DEVICE=cpu",
                                     f"OUTPUT_DIR={folder}"])  # fmt: skip
    model = build_model(cfg)
    with torch.no_grad():
        model.backbone.res2[0].conv1.weight.mul_(2)
        model.backbone.res2[0].residual_scale.fill_(0.5)
    build_checkpointer(cfg, model).save("model_final")
    save_backbone(folder / "backbone.pth", model.backbone.state_dict(), describe(cfg))
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


@pytest.mark.parametrize("name", ["model_final.pth", "backbone.pth"])
def test_weights_of_a_pretraining_find_the_config_beside_them(name, trained):
    found = analyzed("--weights", str(trained / name), opts=[])
    conv = conv_named(found, "res2.0.conv1")
    assert conv["smallest"] == pytest.approx(2) and found["residual_scales"]["res2.0"] == [0.5]
    assert found["weights"] == str(trained / name)


@pytest.mark.parametrize(
    ("config", "last"), [("risonet18_c4", "res5.1"), ("risonet18_fpn", "res5.1")]
)
def test_a_detector_is_analyzed_to_its_last_stage(config, last, trained):
    weights = ["--weights", str(trained / "backbone.pth")]
    found = analyzed("--config-file", f"configs/{config}.yaml", *weights)
    assert found["signals"][-1]["name"] == last
    assert conv_named(found, "res2.0.conv1")["largest"] == pytest.approx(2)
    assert not any("rpn" in conv["name"] for conv in found["convolutions"])


def test_all_means_the_heads_too():
    arguments = ["--config-file", "configs/faster_risonet50_dc5.yaml", "--all"]
    opts = [*TINY, "MODEL.RESNETS.DEPTH=18", "MODEL.WEIGHTS="]
    found = analyzed(*arguments, opts=opts)
    names = {conv["name"] for conv in found["convolutions"]}
    assert "proposal_generator.rpn_head.conv" in names and "res5.1.conv2" in names


def test_a_network_of_detectron2_s_model_zoo():
    if not (MODEL_ZOO / ZOO).is_file():
        pytest.skip(f"this detectron2 comes without its configs ({MODEL_ZOO})")
    opts = [*TINY, "MODEL.RESNETS.WIDTH_PER_GROUP=4", "MODEL.FPN.OUT_CHANNELS=8"]
    found = analyzed("--config-file", ZOO, opts=opts)
    assert {"stem.conv1", "res5.2.conv3", "backbone.fpn_lateral2"} <= {
        conv["name"] for conv in found["convolutions"]
    }
    assert any("FrozenBatchNorm2d" in note for note in found["notes"])
    assert found["shifts"] == {} and found["residual_scales"] == {}


def test_an_untrained_batch_norm_takes_the_image_s_statistics():
    arguments = ["--config-file", "configs/imagenet/resnet18.yaml"]
    found = analyzed(*arguments)
    assert any("statistics of each image" in note for note in found["notes"])
    by_name = {signal["name"]: signal for signal in found["signals"]}
    assert by_name["res5.1"]["rms"] < 3  # with the stored ones it doubles in each block


def test_weights_that_are_not_finite_are_shown_as_such(capsys):
    network = network_of(isometry.argument_parser().parse_args([*RISONET18, *FEW, *TINY]))
    torch.nn.init.constant_(network.model.backbone.res3[0].shortcut.weight, math.nan)
    found = analyze(network, frequencies=2, limit=10.0, seed=0)
    print_analysis(found)
    assert "explodes forward, in res3.0" in capsys.readouterr().out
    content = json.loads(json.dumps(as_json(found)), parse_constant=pytest.fail)
    assert conv_named(content, "res3.0.shortcut")["largest"] is None
    (axes,) = singular_value_figure(found).axes
    assert [text.get_text() for text in axes.texts] == ["not finite"]
    assert len(histogram_figure(found).axes) == 4  # all stages but res3


def test_decoupled_convolutions_are_skipped_and_reported():
    found = analyzed("--config-file", "configs/decoupled18_dc5.yaml",
                     opts=[*TINY, "MODEL.WEIGHTS="])  # fmt: skip
    assert any("decoupled convolutions are skipped" in note for note in found["notes"])


def test_images_of_a_folder_and_of_a_coco_json(coco_files):
    json_file, folder = coco_files
    detector = ["--config-file", "configs/risonet18_dc5.yaml"]
    opts = [*TINY, "MODEL.WEIGHTS="]
    of_folder = analyzed(*detector, "--images", str(folder), opts=opts)
    of_json = analyzed(*detector, "--images", str(json_file), "--image-root",
                       str(folder), opts=opts)  # fmt: skip
    assert of_folder["images"] == f"1 of {folder}"
    assert of_json["images"].endswith(f"({json_file})")
    assert of_folder["signals"] == of_json["signals"]


class TestTimm:
    @pytest.fixture(autouse=True)
    def timm(self):
        return pytest.importorskip("timm", reason="pip install 'd2_isonet[timm]'")

    def test_a_network_of_timm_with_and_without_weights(self, timm, tmp_path):
        initialized = analyzed("--timm", "test_resnet", opts=[])
        model = timm.create_model("test_resnet")
        with torch.no_grad():
            model.layer1[0].conv1.weight.mul_(3)
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        weights = ["--weights", str(tmp_path / "weights.pth")]
        found = analyzed("--timm", "test_resnet", *weights, opts=[])
        before, after = (conv_named(x, "layer1.0.conv1") for x in (initialized, found))
        assert after["largest"] != before["largest"]
        assert found["network"] == "test_resnet of timm" and len(found["signals"]) > 5

    def test_images_go_through_timm_s_own_transform(self, coco_files):
        arguments = ["--timm", "test_resnet", "--images", str(coco_files[1])]
        assert analyzed(*arguments, opts=[])["images"] == f"1 of {coco_files[1]}"

    def test_unknown_names_and_weights_of_others_are_reported(self, trained, capsys):
        assert "did you mean" in error(capsys, ["--timm", "resnet51"])
        weights = str(trained / "model_final.pth")
        message = error(capsys, ["--timm", "test_resnet", "--weights", weights])
        assert f"{weights} is not this network" in message


def error(capsys, arguments: list[str]) -> str:
    """The one line on stderr with which it ends."""
    with pytest.raises(SystemExit) as ended:
        isometry.main(arguments)
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    return next(line for line in lines if line.startswith("error: "))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --config-file FILE, --weights FILE with the config.yaml"),
        (["--weights", "no_such.pth"], "there is no file .*no_such.pth"),
        (["--config-file", "no_such.yaml"], "no_such.yaml"),
        ([*RISONET18, "--weights", "README.md"], "README.md is not a checkpoint"),
        ([*RISONET18, "--images", "no_such"], "there is no folder .*no_such"),
        ([*RISONET18, "--images", "configs"], "configs has no image"),
        ([*RISONET18, "MODEL.RESNETS.DEPTHS", "18"], "DEPTHS.*did you mean MODEL.RESNETS.DEPTH"),
    ],
)
def test_an_invalid_network_or_image_is_one_message(arguments, message, capsys):
    assert re.search(message, error(capsys, arguments))


def test_weights_of_another_network_are_refused(trained, capsys):
    weights = ["--weights", str(trained / "backbone.pth")]
    message = error(capsys, ["--config-file", "configs/imagenet/risonet34.yaml", *weights, *TINY])
    assert "is not the network the config describes" in message


def test_weights_without_a_config_are_reported_what_is_missing(trained, tmp_path, capsys):
    (tmp_path / "backbone.pth").write_bytes((trained / "backbone.pth").read_bytes())
    assert "give --config-file FILE" in error(capsys, ["--weights", str(tmp_path / "backbone.pth")])


def test_a_json_whose_images_are_elsewhere_is_reported(coco_files, tmp_path, capsys):
    arguments = ["--config-file", "configs/risonet18_dc5.yaml", "--images", str(coco_files[0]),
                 "--image-root", str(tmp_path / "nowhere"), *TINY]  # fmt: skip
    assert "none of its images is in" in error(capsys, arguments)


@pytest.mark.parametrize(
    "arguments", [["--timm", "resnet18", *RISONET18], ["--limit", "1"], ["--frequencies", "0"]]
)
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(SystemExit):
        isometry.argument_parser().parse_args(arguments)
