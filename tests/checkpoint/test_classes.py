"""Weights never give their class names to the classes of other data."""

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer, build_checkpointer
from d2_isonet.checkpoint.classes import class_tensors
from d2_isonet.checkpoint.reading import WeightsError
from d2_isonet.config.loading import load_config
from d2_isonet.data.categories import classes_of_data_sets
from d2_isonet.preflight.network import outline

SETS = {"pets": ["cat", "dog"], "swapped": ["dog", "cat"], "others": ["cat", "cow"]}


@pytest.fixture(autouse=True)
def data_sets():
    """Registers the names of SETS, with ids 3 and 7."""
    for name, classes in SETS.items():
        metadata = MetadataCatalog.get(name)
        metadata.thing_classes = classes
        metadata.thing_dataset_id_to_contiguous_id = {3: 0, 7: 1}
    yield
    for name in SETS:
        MetadataCatalog.remove(name)


def config(folder, train: str = "pets", *opts: str):
    return load_config(
        "configs/quickstart/small_risonet18_dc5.yaml",
        ["MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(folder),
         "DATASETS.TRAIN", repr((train,)), "DATASETS.TEST", "()", *opts],
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(config(""))


@pytest.fixture
def file(model, tmp_path) -> str:
    """A checkpoint of a training on "pets"."""
    checkpointer = build_checkpointer(config(tmp_path), model)
    checkpointer.save("pets", trainer={"iteration": 1})
    return str(tmp_path / "pets.pth")


def load(model, file: str, data_set: str, *, strict: bool = False, resume: bool = False):
    checkpointer = build_checkpointer(config("", data_set), model, [data_set], strict=strict)
    checkpointer.load(file, None if resume else [])
    return checkpointer


USES = [{"strict": True}, {"resume": True}, {}]


@pytest.mark.parametrize("use", USES)
def test_the_same_names_in_the_same_order_pass(use, model, file):
    assert load(model, file, "pets", **use).restarts == ""


@pytest.mark.parametrize("use", USES)
def test_the_same_names_in_another_order_are_refused(use, model, file):
    message = "classes cat, dog, .*'swapped' has dog, cat: the same names in another order"
    with pytest.raises(WeightsError, match=message):
        load(model, file, "swapped", **use)


@pytest.mark.parametrize("use", USES[:2])
def test_evaluation_and_resume_refuse_other_names(use, model, file):
    with pytest.raises(WeightsError, match="classes cat, dog, .*'others' has cat, cow; give data"):
        load(model, file, "others", **use)


def test_a_training_that_starts_with_other_names_starts_its_head_anew(file, caplog):
    torch.manual_seed(1)
    model = build_model(config("", "others"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    restarts = load(model, file, "others").restarts
    saved = torch.load(file, weights_only=True)["model"]
    anew = class_tensors(saved)
    assert len(anew) == 6 and "; " not in restarts and restarts in caplog.text
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if name in anew else saved[name]), name
        assert (name in restarts) == (name in anew)


@pytest.mark.parametrize("record", [None, {}, {"categories": "cat"}])
def test_weights_that_do_not_name_their_classes_pass(record, model, file):
    content = torch.load(file, weights_only=True)
    content["meta"] = record
    torch.save(content, file)
    for use in USES:
        assert load(model, file, "others", **use).restarts == ""


@pytest.mark.parametrize("data_set", ["no_such_set", "pets"])
def test_a_resumed_training_keeps_the_record(data_set, model, file, tmp_path):
    MetadataCatalog.remove("pets")
    MetadataCatalog.get("pets").thing_classes = SETS["pets"]  # with ids 1 and 2
    checkpointer = build_checkpointer(config(tmp_path, data_set), model, [data_set])
    checkpointer.load(file)
    checkpointer.save("resumed")
    record = torch.load(tmp_path / "resumed.pth", weights_only=True)["meta"]
    assert record["categories"] == {"names": ["cat", "dog"], "ids": [3, 7]}


def test_a_resumed_training_does_not_name_the_classes_of_a_file_without_names(
    model, file, tmp_path
):
    content = torch.load(file, weights_only=True)
    torch.save({**content, "meta": None}, file)
    checkpointer = build_checkpointer(config(tmp_path), model, ["pets"])
    checkpointer.load(file)
    checkpointer.save("resumed")
    record = torch.load(tmp_path / "resumed.pth", weights_only=True)["meta"]
    assert "categories" not in record and record["architecture"]


def test_without_a_config_the_record_is_kept_too(model, file, tmp_path):
    lazy = ISONetCheckpointer(model, str(tmp_path), classes=lambda: classes_of_data_sets(["pets"]))
    lazy.load(file)
    lazy.save("lazy")
    assert torch.load(tmp_path / "lazy.pth", weights_only=True)["meta"]["categories"]["ids"] == [
        *(3, 7)
    ]


def test_a_set_for_another_head_is_not_compared(model, file):
    assert load(model, file, "coco_2017_val").restarts == ""


@pytest.mark.parametrize(
    ("name", "opts", "layers"),
    [
        ("risonet18_c4", (), {"cls_score", "bbox_pred", "predictor"}),
        ("risonet18_c4", ("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", "True"),
         {"cls_score", "bbox_pred"}),
        ("cascade_risonet50_fpn", (), {"0.cls_score", "1.cls_score", "2.cls_score", "predictor"}),
        ("retinanet_risonet50_fpn", (), {"head.cls_score"}),
        ("imagenet/risonet18", ("MODEL.CLASSIFIER.NUM_CLASSES", "7"), {"linear"}),
    ],
)  # fmt: skip
def test_the_layers_of_classes(name, opts, layers):
    cfg = load_config(f"configs/{name}.yaml", ["MODEL.DEVICE", "cpu", *opts])
    found = class_tensors(outline(cfg).state_dict())
    assert len(found) == 2 * len(layers)
    assert all(any(f".{n}".endswith((f".{x}.weight", f".{x}.bias")) for x in layers) for n in found)


@pytest.mark.parametrize(("classes", "refused"), [(["a", "b"], ""), (["b", "a"], "another order")])
def test_a_classifier_records_and_compares_the_names_of_its_folders(classes, refused, tmp_path):
    opts = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path), "MODEL.CLASSIFIER.NUM_CLASSES", "2"]
    cfg = load_config("configs/cifar/risonet20.yaml", [*opts, "DATASETS.TRAIN", "('folders',)"])
    for name, names in ("folders", ["a", "b"]), ("turned", classes):
        vars(MetadataCatalog.get(name))["classes"] = names
    model = build_model(cfg)
    build_checkpointer(cfg, model).save("trained")
    checkpointer = build_checkpointer(cfg, model, ["turned"], strict=True)
    if not refused:
        assert checkpointer.load(str(tmp_path / "trained.pth"), []) is not None
        return
    with pytest.raises(WeightsError, match=f"'turned' has b, a: .*{refused}"):
        checkpointer.load(str(tmp_path / "trained.pth"), [])
