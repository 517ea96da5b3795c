"""Classified images are looked at before a pretraining."""

from argparse import Namespace

import pytest
from PIL import Image

from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import load_registered, register_data_root
from d2_isonet.engine.pretraining import finish_pretraining_setup
from d2_isonet.preflight.data.images import classified_image_findings


@pytest.fixture
def tree(tmp_path):
    """20 images to train on, 4 to evaluate, of two classes."""
    for split, number in (("train", 10), ("val", 2)):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(number):
                image = Image.effect_noise((20, 20 + len(split)), 50)
                image.save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def dicts(tree) -> list[list[dict]]:
    return [load_registered(name)[0] for name in register_data_root(str(tree))]


def findings_of(tree, max_unreadable: float = 0.0) -> list:
    cfg = load_config("", ["DATALOADER.MAX_UNREADABLE", str(max_unreadable)])
    return classified_image_findings(cfg, *dicts(tree))


def said(findings, severity: str) -> str:
    return "\n".join(str(f) for f in findings if f.severity == severity)


def test_a_good_tree_has_facts_alone(tree):
    findings = findings_of(tree)
    assert {f.severity for f in findings} == {"fact"}
    assert "DATASETS.TRAIN: 20 of 20 image files looked at" in said(findings, "fact")


def test_an_unreadable_image_is_an_error_or_within_the_share_a_warning(tree):
    (tree / "train/a/3.png").write_bytes(b"")
    message = f"1 of 20 images unreadable: {tree}/train/a/3.png (0 bytes)"
    assert message in said(findings_of(tree), "error")
    assert message in said(findings_of(tree, 0.1), "warning")


def test_an_unreadable_image_for_evaluation_is_an_error_whatever_the_share(tree):
    (tree / "val/a/1.png").write_bytes(b"")
    findings = findings_of(tree, 0.5)
    assert f"1 of 4 images unreadable: {tree}/val/a/1.png" in said(findings, "error")


def test_an_image_in_both_is_told_by_its_content(tree):
    (tree / "val/b/copy.png").write_bytes((tree / "train/a/3.png").read_bytes())
    findings = findings_of(tree)
    names = f"{tree}/val/b/copy.png (as {tree}/train/a/3.png)"
    assert f"1 of 5 images that are trained on as well: {names}" in said(findings, "warning")


def test_an_orientation_that_is_not_applied_is_a_fact(tree):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 5)).save(tree / "train/a/turned.jpg", exif=exif)
    findings = findings_of(tree)
    assert "with an EXIF orientation, which is not applied" in said(findings, "fact")


@pytest.mark.parametrize(("eval_only", "path"), [(False, "train/a/3.png"), (True, "val/a/1.png")])
def test_a_pretraining_stops_before_it_starts(eval_only, path, tree):
    (tree / path).write_bytes(b"")
    cfg = load_config("configs/imagenet/risonet18.yaml", ["OUTPUT_DIR", str(tree / "out")])
    args = Namespace(data_root=str(tree), eval_only=eval_only)
    with pytest.raises(ValueError, match=f"images unreadable: {tree}/{path}"):
        finish_pretraining_setup(cfg, args)
    assert not (tree / "out").exists()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["INPUT.CLASSIFICATION.CROP_SIZE=288"], "crop of 288 pixels does not fit .* 256"),
        (["INPUT.CLASSIFICATION.MIN_AREA=2"], "MIN_AREA is 2.0"),
        (["TEST.CLASSIFICATION_BATCH_SIZE=0"], "CLASSIFICATION_BATCH_SIZE is 0"),
        (["MODEL.PIXEL_STD=[0.0,1.0,1.0]"], "MODEL.PIXEL_STD"),
        (["SOLVER.FILTER_ORTHO_COEFF=1e-5"], "FILTER_ORTHO_COEFF is 1e-05 with .*'Conv2d'"),
        (["SOLVER.ORTHO_FORM=exakt"], "SOLVER.ORTHO_FORM is 'exakt'"),
    ],
)
def test_what_no_evaluation_or_step_can_do_stops_it_before_a_file_is_written(pairs, message, tree):
    out = f"OUTPUT_DIR={tree / 'out'}"
    cfg = load_config("configs/imagenet/risonet18.yaml", [out, "MODEL.DEVICE=cpu", *pairs])
    args = Namespace(
        data_root=str(tree), eval_only=False, resume=False, trust_pickle=False, num_machines=1,
        num_gpus=1, config_file="",
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        finish_pretraining_setup(cfg, args)
    assert not (tree / "out").exists()
