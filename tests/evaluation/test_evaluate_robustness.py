"""The evaluation of robustness: counted by hand, its report, and the signs of gradient masking."""

import json
import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from d2_isonet.commands import robustness as tool
from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_data_root
from d2_isonet.evaluation.gradient_masking import masking_signs
from d2_isonet.evaluation.robustness import (
    attack_settings,
    choose_images,
    evaluate_robustness,
    load_classifier,
    load_source,
)
from d2_isonet.modeling.attacks import bim, fgsm
from d2_isonet.reporting.robustness import _masking_lines

CONFIG = "configs/imagenet/risonet18.yaml"
OPTS = [
    "MODEL.DEVICE=cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS=8", "MODEL.RESNETS.RES2_OUT_CHANNELS=8",
    "INPUT.CLASSIFICATION.CROP_SIZE=32", "INPUT.CLASSIFICATION.RESIZE=32",
    "DATALOADER.NUM_WORKERS=0", "TEST.CLASSIFICATION_BATCH_SIZE=5",
]  # fmt: skip


def network(seed: int = 0):
    torch.manual_seed(seed)
    return build_model(load_config(CONFIG, [*OPTS, "MODEL.CLASSIFIER.NUM_CLASSES=3"])).eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """12 images of 3 classes in train/ and val/, and the weights of two networks."""
    root = tmp_path_factory.mktemp("robustness")
    torch.manual_seed(0)
    for index in range(12):
        folder = root / "train" / "abc"[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
    (root / "val").symlink_to(root / "train")
    for seed in (0, 1):
        torch.save({"model": network(seed).state_dict()}, root / f"{seed}.pth")
    return root


def batches(root: Path) -> list[list[dict]]:
    """Images whose labels are what the network says, but for the last one's."""
    torch.manual_seed(5)
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    labels = network().pixel_logits(images).argmax(dim=1)
    labels[-1] = (labels[-1] + 1) % 3
    dicts = [{"image": x, "label": int(y)} for x, y in zip(images, labels, strict=True)]
    return [dicts[:4], dicts[4:]]


def test_accuracies_are_those_counted_by_hand(root):
    model, source, data = network(), network(1), batches(root)
    settings = attack_settings(["fgsm", "bim"], [1.0, 8.0], None, 4)
    results = evaluate_robustness(model, data, settings, source, num_effort_images=0)
    images = torch.stack([x["image"] for batch in data for x in batch])
    labels = torch.tensor([x["label"] for batch in data for x in batch])
    assert results["clean"] == pytest.approx(100 * 6 / 7)
    assert (results["num_images"], results["num_classes"]) == (7, 3)
    assert len(results["rows"]) == 9 and results["l2_effort"]["median"] is None
    for row in results["rows"]:
        logits = (model if row["access"] == "white-box" else source).pixel_logits
        options = {key: row[key] for key in ("eps", "step", "iterations")}
        if row["attack"] == "fgsm":
            options = {"eps": row["eps"]}
        adversarial = (fgsm if row["attack"] == "fgsm" else bim)(logits, images, labels, **options)
        right = (model.pixel_logits(adversarial).argmax(dim=1) == labels).float().mean()
        assert row["accuracy"] == pytest.approx(100 * float(right))


def test_a_step_follows_from_eps_unless_it_is_given():
    one, two = attack_settings(["bim"], [8.0, 4.0], None, 10)
    assert (one["step"], two["step"]) == (2.0, 1.0)
    given, fgsm_setting = attack_settings(["bim", "fgsm"], [8.0], 3.0, 10)
    assert (given["step"], given["iterations"]) == (3.0, 10)
    assert (fgsm_setting["step"], fgsm_setting["iterations"]) == (8.0, 1)


def test_the_effort_is_that_of_the_images_classified_right(root):
    model, data = network(), batches(root)
    settings = attack_settings(["fgsm"], [1.0], None, 1)
    effort = evaluate_robustness(model, data, settings)["l2_effort"]
    assert effort["num_images"] == 6 and effort["not_fooled"] == 0
    assert 0 < effort["relative_median"] < 1 and effort["median"] > effort["relative_median"]
    few = evaluate_robustness(model, data, settings, num_effort_images=3)["l2_effort"]
    assert few["num_images"] == 3


def test_diverged_weights_are_no_accuracy(root):
    model = network()
    model.linear.bias.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        evaluate_robustness(model, batches(root), attack_settings(["fgsm"], [1.0], None, 1))


def test_the_seed_chooses_the_images(root):
    names = register_data_root(root)[1:]
    chosen = [[x["file_name"] for x in choose_images(names, 5, seed)[0]] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2] and len(set(chosen[0])) == 5
    assert len(choose_images(names, 1000, 0)[0]) == 12
    with pytest.raises(ValueError, match="number of images is 0"):
        choose_images(names, 0, 0)


def test_a_source_of_another_channel_order_is_refused(root):
    cfg = load_config(CONFIG, OPTS)
    with pytest.raises(ValueError, match="INPUT.FORMAT is BGR"):
        load_source(CONFIG, [*OPTS, "INPUT.FORMAT=BGR"], str(root / "1.pth"), cfg, 3)


def test_a_detector_is_no_classifier():
    with pytest.raises(ValueError, match="META_ARCHITECTURE is 'GeneralizedRCNN'"):
        load_classifier(load_config("configs/risonet18_dc5.yaml", []), "x.pth", 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["pgd"], [8.0], None, 10), "attack is 'pgd'; it must be one of"),
        ((["bim"], [-1.0], None, 10), "eps is .*from 0 to 255"),
        ((["bim"], [8.0], 0.0, 10), "step is 0.0"),
        ((["bim"], [8.0], float("inf"), 10), "step is inf"),
        ((["bim"], [8.0], None, 0), "iterations 0"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        attack_settings(*arguments)


def test_the_tool_prints_and_writes_what_it_returns(root, tmp_path, capsys):
    arguments = [
        *("--config-file", CONFIG, "--weights", str(root / "0.pth"), "--data-root", str(root)),
        *("--source-weights", str(root / "1.pth"), "--num-images", "7", "--effort-images", "2"),
        *("--eps", "2", "16", "--iterations", "2", "--output", str(tmp_path), *OPTS),
    ]
    results = tool.measure(tool.argument_parser().parse_args(arguments))
    said = capsys.readouterr().out
    assert json.loads((tmp_path / "robustness.json").read_text()) == results
    assert Image.open(tmp_path / "robustness.png").size > (400, 400)
    assert (results["num_images"], results["seed"], len(results["rows"])) == (7, 0, 9)
    for row in results["rows"]:
        words = [row["attack"], row["access"], f"{row['eps']:g}", f"{row['step']:g}"]
        line = [*words, str(row["iterations"]), f"{row['accuracy']:.1f}"]
        assert line in [text.split() for text in said.splitlines()]
    assert f"none 0 {results['clean']:.1f}".split() in [x.split() for x in said.splitlines()]


def test_a_missing_file_is_one_message(root, capsys):
    arguments = ["--config-file", CONFIG, "--weights", "no.pth", "--data-root", str(root)]
    with pytest.raises(SystemExit):
        tool.main([*arguments, "--seed", "0", *OPTS])
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source-config", CONFIG], "--source-config is .* without --source-weights"),
        (["--effort-images", "-3"], "--effort-images is -3; it must be at least 0"),
        (["--output", "/proc/none/x"], "--output /proc/none/x: .*; name a folder"),
        (["--output", __file__], "--output .*test_evaluate_robustness.py: .*; name a folder"),
    ],
)
def test_impossible_arguments_end_before_weights_are_read(words, message, root, capsys):
    arguments = ["--config-file", CONFIG, "--weights", "no.pth", "--data-root", str(root)]
    with pytest.raises(SystemExit):
        tool.main([*arguments, *words, "--seed", "0", *OPTS])
    assert re.search(f"error: {message}", capsys.readouterr().err)


def diverged_weights(root: Path, tmp_path: Path, value: float) -> str:
    """Weights with `value` in them; a finite one so large that the logits overflow."""
    state = torch.load(root / "0.pth")
    state["model"]["linear.weight"].fill_(value)
    state["model"]["linear.weight"][0] *= -1
    torch.save(state, tmp_path / "diverged.pth")
    return str(tmp_path / "diverged.pth")


@pytest.mark.parametrize("value", [torch.nan, 3e38], ids=["nan", "overflow"])
@pytest.mark.parametrize("option", ["--weights", "--source-weights"])
def test_diverged_weights_are_one_message_with_their_file(option, value, root, tmp_path, capsys):
    weights = {"--weights": str(root / "0.pth"), "--source-weights": str(root / "1.pth")}
    weights[option] = diverged_weights(root, tmp_path, value)
    arguments = ["--config-file", CONFIG, "--data-root", str(root), "--output", str(tmp_path)]
    arguments += [word for pair in weights.items() for word in pair]
    with pytest.raises(SystemExit):
        tool.main([*arguments, "--num-images", "4", "--seed", "0", *OPTS])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "diverged" in error.split("error: ")[1] and weights[option] in error.split("error: ")[1]


def results(zero_gradients: float = 0.0, clean: float = 90.0, **accuracies: float) -> dict:
    """Hand-made: fgsm_8=40 is white-box FGSM at eps 8, black_bim_8=30 black-box BIM."""
    rows = []
    for name, accuracy in accuracies.items():
        access = "black-box" if name.startswith("black_") else "white-box"
        attack, eps = name.removeprefix("black_").split("_")
        row = {"attack": attack, "access": access, "eps": float(eps), "accuracy": accuracy}
        rows.append({**row, "step": float(eps) / 4, "iterations": 10})
    return {"clean": clean, "rows": rows, "zero_gradients": zero_gradients, "num_classes": 10}


HONEST = {"fgsm_8": 40.0, "bim_8": 30.0, "black_bim_8": 60.0, "bim_127": 1.0}


def test_honest_numbers_show_no_sign():
    assert masking_signs(results(**HONEST)) == []
    assert masking_signs(results(fgsm_8=40.0, bim_8=40.0)) == []  # a linear classifier's


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"fgsm_8": 40.0, "bim_8": 45.0}, "At eps 8 BIM leaves 45.0 % and one step (FGSM) only 40"),
        ({"fgsm_8": 52.6, "bim_8": 10.2}, "robust to one step only"),
        ({"bim_8": 60.0, "black_bim_8": 40.0}, "BIM by another network's gradients leaves 40.0 %"),
        ({"fgsm_2": 60.0, "black_fgsm_2": 40.0}, "FGSM by another network's gradients"),
        ({"bim_127.5": 30.0}, "At eps 127.5, which can turn every image grey, BIM still leaves 30"),
        ({"bim_8": 30.0, "bim_16": 35.0}, "a larger eps should leave less"),
        ({"bim_8": 30.0, "zero_gradients": 20.0}, "gradient of 20.0 % of the images is exactly"),
    ],
)
def test_each_sign_is_one_sentence(numbers, sentence):
    (sign,) = masking_signs(results(**numbers))
    assert sentence in sign


def test_one_answer_to_every_image_is_no_masking():
    constant = {**results(clean=14.9, bim_127=14.9, zero_gradients=100.0), "gradient_masking": []}
    assert masking_signs(constant) == []
    assert _masking_lines(constant)[0].startswith("It guesses even without an attack")


@pytest.mark.parametrize(
    ("fgsm_8", "bim_8", "looks_masked"),
    [(18.82, 8.67, False), (50.47, 7.74, True), (82.2, 17.38, True), (85.98, 35.07, False)],
)
def test_of_the_slides_numbers_those_near_chance_look_masked(fgsm_8, bim_8, looks_masked):
    assert bool(masking_signs(results(fgsm_8=fgsm_8, bim_8=bim_8))) == looks_masked
