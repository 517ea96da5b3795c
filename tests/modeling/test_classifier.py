"""The pretraining model."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.modeling import build_model
from torch import nn

from d2_isonet.config.loading import load_config
from d2_isonet.distributed.launch import launch
from d2_isonet.modeling import classifier as module
from d2_isonet.modeling.attacks import evaluation_mode, fgsm
from d2_isonet.utils.compat import create_ddp_model

NARROW = [
    "MODEL.DEVICE", "cpu", "MODEL.CLASSIFIER.NUM_CLASSES", "5",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "8",
]  # fmt: skip


def classifier(*opts: str):
    return build_model(load_config("configs/imagenet/risonet18.yaml", [*NARROW, *opts]))


def batch(count: int = 4, size: int = 64) -> list[dict]:
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    return [{"image": x, "label": i % 5} for i, x in enumerate(images)]


def test_in_training_it_returns_the_mean_cross_entropy():
    model = classifier("MODEL.CLASSIFIER.DROPOUT", "0.0")
    inputs = batch()
    logits = model.logits(model.normalize(model.stack_images(inputs)))
    expected = -logits.log_softmax(1)[range(4), [0, 1, 2, 3]].mean()
    torch.testing.assert_close(model(inputs)["loss_cls"], expected)


def test_in_evaluation_it_returns_one_vector_of_logits_an_image():
    model = classifier().eval()
    inputs = batch(3)
    with torch.no_grad():
        outputs = model(inputs)
        alone = model(inputs[1:2])[0]["logits"]
    assert [set(o) for o in outputs] == [{"logits"}] * 3
    assert outputs[0]["logits"].shape == (5,)
    torch.testing.assert_close(outputs[1]["logits"], alone, rtol=1e-4, atol=1e-5)


def test_the_detection_twin_sees_the_same_pixels():
    detector = build_model(
        load_config("configs/risonet18_dc5.yaml", ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    )
    inputs = batch(2)
    model = classifier()
    ours = model.normalize(model.stack_images(inputs))
    assert torch.equal(ours, detector.preprocess_image(inputs).tensor)


def test_dropout_sits_before_the_last_layer_and_nowhere_else():
    model = classifier()
    assert [n for n, m in model.named_modules() if isinstance(m, nn.Dropout)] == ["dropout"]
    assert model.dropout.p == 0.4
    seen = []
    model.dropout.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    model(batch(2))
    assert seen == [(2, 64)]


def test_every_parameter_gets_a_gradient():
    model = classifier()
    model(batch())["loss_cls"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("dilation", ["1", "2"])
@pytest.mark.parametrize("order", ["['res2', 'res4', 'res5']", "['res5', 'res2']"])
def test_the_deepest_feature_is_classified_whatever_the_order(order, dilation):
    opts = ["MODEL.RESNETS.OUT_FEATURES", order, "MODEL.RESNETS.RES5_DILATION", dilation]
    model = classifier(*opts)
    assert (model.feature, model.linear.in_features) == ("res5", 64)


def test_without_a_number_of_classes_it_says_so():
    with pytest.raises(ValueError, match="NUM_CLASSES is 0"):
        classifier("MODEL.CLASSIFIER.NUM_CLASSES", "0")


@pytest.fixture
def targets(monkeypatch) -> list[torch.Tensor]:
    """The targets of the cross-entropy, call by call."""
    seen = []
    original = F.cross_entropy

    def cross_entropy(logits, target, **options):
        seen.append(target)
        return original(logits, target, **options)

    monkeypatch.setattr(module.F, "cross_entropy", cross_entropy)
    return seen


PLAIN = ("MODEL.CLASSIFIER.DROPOUT", "0.0")
MIXUP = (*PLAIN, "INPUT.CLASSIFICATION.MIXUP_ALPHA", "0.7")
ADVERSARIAL = (*PLAIN, "SOLVER.ADVERSARIAL.ATTACK", "BIM", "SOLVER.ADVERSARIAL.ITERATIONS", "2")


def test_mixup_labels_sum_to_one_and_name_two_classes(targets):
    model, inputs = classifier(*MIXUP), batch()
    for _ in range(5):
        model(inputs)
    for target in targets:
        assert target.shape == (4, 5) and (target >= 0).all()
        torch.testing.assert_close(target.sum(dim=1), torch.ones(4))
        assert ((target > 0).sum(dim=1) == 2).all()
    assert len({float(target[0, 0]) for target in targets}) == 5


def test_mixup_is_the_loss_of_the_mixed_images_with_both_labels(targets):
    model, inputs = classifier(*MIXUP), batch()
    loss = model(inputs)["loss_cls"]
    share = targets[0][0, 0]  # of the image itself; the rest is the image before it
    images = torch.stack([x["image"] for x in inputs]).float()
    mixed = share * images + (1 - share) * images.roll(1, 0)
    log_p = model.pixel_logits(mixed).log_softmax(dim=1)
    own, other = log_p[range(4), [0, 1, 2, 3]], log_p[range(4), [3, 0, 1, 2]]
    torch.testing.assert_close(loss, -(share * own + (1 - share) * other).mean())


def test_mixup_does_not_touch_evaluation():
    model, inputs = classifier(*MIXUP).eval(), batch()
    first, second = (model(inputs)[0]["logits"] for _ in range(2))
    assert torch.equal(first, second)


def test_label_smoothing_gives_a_share_of_the_target_to_all_classes():
    model, inputs = classifier(*PLAIN, "MODEL.CLASSIFIER.LABEL_SMOOTHING", "0.1"), batch()
    log_p = model.logits(model.normalize(model.stack_images(inputs))).log_softmax(dim=1)
    expected = -(0.9 * log_p[range(4), [0, 1, 2, 3]] + 0.1 * log_p.mean(dim=1)).mean()
    torch.testing.assert_close(model(inputs)["loss_cls"], expected)


def test_zero_init_starts_with_equal_classes():
    model = classifier("MODEL.CLASSIFIER.ZERO_INIT", "True").eval()
    logits = torch.stack([x["logits"] for x in model(batch())])
    assert torch.equal(logits, torch.zeros(4, 5))


def test_pixel_logits_are_those_of_evaluation():
    model, inputs = classifier().eval(), batch()
    images = torch.stack([x["image"] for x in inputs]).float()
    expected = torch.stack([x["logits"] for x in model(inputs)])
    assert torch.equal(model.pixel_logits(images), expected)


def test_adversarial_training_is_the_loss_of_the_attacked_batch():
    model, inputs = classifier(*ADVERSARIAL), batch()
    images, labels = torch.stack([x["image"] for x in inputs]), torch.arange(4)
    attacked = model.attack(model.pixel_logits, images, labels)
    assert 0 < (attacked - images).abs().max() <= 8
    expected = F.cross_entropy(model.pixel_logits(attacked), labels)
    clean = F.cross_entropy(model.pixel_logits(images), labels)
    loss = model(inputs)["loss_cls"]
    torch.testing.assert_close(loss, expected)
    assert loss > clean


def test_the_attack_in_training_leaves_no_gradient_and_no_other_mode():
    model = classifier(*ADVERSARIAL)
    model(batch())
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())


def test_every_parameter_gets_a_gradient_in_adversarial_training():
    model = classifier(*ADVERSARIAL)
    model(batch())["loss_cls"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_batch_norm_counts_only_the_batch_that_is_trained_on():
    model = classifier(*ADVERSARIAL, "MODEL.RESNETS.NORM", "BN")
    model(batch())
    counts = {n: int(b) for n, b in model.named_buffers() if n.endswith("num_batches_tracked")}
    assert counts and set(counts.values()) == {1}


def test_the_attack_runs_in_float32_under_autocast():
    model, inputs = classifier(*ADVERSARIAL), batch()
    images, labels = torch.stack([x["image"] for x in inputs]), torch.arange(4)
    seen = []

    def attack(logits, images, labels):
        seen.append((logits(images).dtype, fgsm(logits, images, labels, eps=8)))
        return seen[-1][1]

    model.attack = attack
    with torch.autocast("cpu", torch.bfloat16):
        model(inputs)["loss_cls"].backward()
    with evaluation_mode(model):
        expected = fgsm(model.pixel_logits, images, labels, eps=8)
    assert seen[0][0] == torch.float32 and torch.equal(seen[0][1], expected)


def adversarial_step(path: str) -> None:
    """One backward pass of each rank on its two images; rank 0 writes the gradients."""
    torch.manual_seed(0)
    model = classifier(*ADVERSARIAL).double()  # the sign of a gradient has no tolerance
    inputs = batch()
    if dist.is_initialized():
        inputs = inputs[2 * dist.get_rank() :][:2]
    parallel = create_ddp_model(model)  # kept: without it the gradients would not be averaged
    parallel(inputs)["loss_cls"].backward()
    if not dist.is_initialized() or dist.get_rank() == 0:
        torch.save([p.grad for p in model.parameters()], path)


@pytest.mark.usefixtures("fork_server")
def test_adversarial_training_on_two_processes_is_that_on_one(tmp_path):
    for processes in (1, 2):
        launch(adversarial_step, processes, args=(str(tmp_path / str(processes)),))
    one, two = (torch.load(tmp_path / name) for name in ("1", "2"))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.CLASSIFIER.DROPOUT", 1.0),
        ("MODEL.CLASSIFIER.LABEL_SMOOTHING", 1.0),
        ("MODEL.CLASSIFIER.LABEL_SMOOTHING", -0.1),
        ("INPUT.CLASSIFICATION.MIXUP_ALPHA", -0.7),
        ("SOLVER.ADVERSARIAL.ATTACK", "PGD"),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(key, value):
    with pytest.raises(ValueError, match=f"{key} is '?{value}"):
        classifier(key, str(value))
