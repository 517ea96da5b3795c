"""Attacks against closed forms and against foolbox."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2_isonet.modeling.attacks import bim, build_attack, evaluation_mode, fgsm, l2_effort


def images(count: int = 6, low: float = 0, high: float = 255) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, 3, 5, 5)


class Linear(nn.Module):
    """Logits of a linear classifier of pixels."""

    def __init__(self, num_classes: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, 75) / 255)
        self.bias = nn.Parameter(torch.randn(num_classes) / 10)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


def network() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(128)
    norm.running_var.fill_(64**2)
    conv = nn.Conv2d(3, 8, 3)
    return nn.Sequential(norm, conv, nn.Tanh(), nn.Flatten(), nn.Linear(72, 4)).eval()


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
FUNCTIONS = [
    lambda model, x, eps: fgsm(model, x, LABELS, eps=eps),
    lambda model, x, eps: bim(model, x, LABELS, eps=eps, step=0.7 * eps, iterations=5),
]


@pytest.mark.parametrize("attack", FUNCTIONS)
@pytest.mark.parametrize("eps", [0.1, 1 / 3, 8.3, 127.5, 255.0])
@pytest.mark.parametrize("whole", [True, False])
def test_no_pixel_leaves_eps_or_the_range_not_even_by_rounding(attack, eps, whole):
    clean = images().round() if whole else images()
    adversarial = attack(network(), clean, eps)
    assert (adversarial.double() - clean.double()).abs().max() <= eps
    assert adversarial.min() >= 0 and adversarial.max() <= 255
    assert adversarial.dtype == torch.float32 and not torch.equal(adversarial, clean)


@pytest.mark.parametrize("attack", FUNCTIONS)
def test_eps_0_is_the_clean_image(attack):
    clean = images()
    assert torch.equal(attack(network(), clean, 0.0), clean)


def test_fgsm_of_a_linear_classifier_is_the_closed_form():
    model, clean = Linear(), images()
    probabilities = model(clean).softmax(dim=1)
    gradient = (probabilities - F.one_hot(LABELS, 4)) @ model.weight
    expected = (clean + 8 * gradient.sign().view_as(clean)).clamp(0, 255)
    torch.testing.assert_close(fgsm(model, clean, LABELS, eps=8), expected, rtol=0, atol=3e-5)


def test_one_iteration_of_bim_with_a_step_of_eps_is_fgsm():
    model, clean = network(), images()
    once = bim(model, clean, LABELS, eps=8, step=8, iterations=1)
    assert torch.equal(once, fgsm(model, clean, LABELS, eps=8))


def test_fgsm_raises_the_loss_and_bim_raises_it_more():
    model, clean = network(), images()
    adversarial = bim(model, clean, LABELS, eps=8, step=2, iterations=10)
    losses = [
        F.cross_entropy(model(x), LABELS)
        for x in (clean, fgsm(model, clean, LABELS, eps=8), adversarial)
    ]
    assert losses[0] < losses[1] < losses[2]


def test_uint8_images_are_attacked_like_floats():
    model, clean = network(), images().byte()
    a, b = (fgsm(model, x, LABELS, eps=2) for x in (clean, clean.float()))
    assert torch.equal(a, b)


def test_an_attack_leaves_no_gradient_on_a_parameter_and_works_without_grad_mode():
    model = network()
    with torch.no_grad():
        adversarial = bim(model, images(), LABELS, eps=8, step=2, iterations=2)
        l2_effort(model, images(), LABELS, iterations=2)
    assert [p.grad for p in model.parameters()] == [None] * 6
    assert not adversarial.requires_grad


@pytest.mark.parametrize("eps", [2.0, 8.0])
@pytest.mark.parametrize("name", ["LinfFastGradientAttack", "LinfBasicIterativeAttack"])
def test_it_equals_foolbox(name, eps):
    foolbox = pytest.importorskip("foolbox")
    model, clean = network(), images()
    theirs_model = foolbox.PyTorchModel(model, bounds=(0, 255), device="cpu")
    if name == "LinfBasicIterativeAttack":
        options = {"random_start": False, "steps": 10, "abs_stepsize": eps / 4}
        ours = bim(model, clean, LABELS, eps=eps, step=eps / 4, iterations=10)
    else:
        options, ours = {"random_start": False}, fgsm(model, clean, LABELS, eps=eps)
    attack = getattr(foolbox.attacks, name)(**options)
    theirs = attack.run(theirs_model, clean, foolbox.criteria.Misclassification(LABELS),
                        epsilon=eps)  # fmt: skip
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 4, 30])
def test_the_l2_effort_of_a_linear_classifier_is_the_distance_to_its_nearest_hyperplane(
    num_classes,
):
    model, clean = Linear(num_classes), images(20, 100, 150)
    logits = model(clean)
    labels = logits.argmax(dim=1)
    gaps = logits.max(dim=1, keepdim=True).values - logits
    normals = (model.weight[labels][:, None] - model.weight).norm(dim=2)
    distances = torch.where(normals > 0, gaps / normals, torch.inf).min(dim=1).values
    effort = l2_effort(model, clean, labels, num_candidates=num_classes)
    torch.testing.assert_close(effort, distances.detach(), rtol=2e-3, atol=2e-3)


def test_the_l2_effort_is_0_for_a_misclassified_image():
    model, clean = network(), images()
    wrong = (model(clean).argmax(dim=1) + 1) % 4
    assert torch.equal(l2_effort(model, clean, wrong), torch.zeros(6))


def test_the_l2_effort_is_infinite_where_nothing_fools():
    def constant(x):
        return torch.tensor([1.0, 0, 0]).repeat(len(x), 1) + 0 * x.sum(dim=(1, 2, 3))[:, None]

    effort = l2_effort(constant, images(), torch.zeros(6, dtype=torch.int64), iterations=3)
    assert torch.equal(effort, torch.full((6,), torch.inf))


def test_a_classifier_of_one_class_is_never_fooled():
    labels = torch.zeros(6, dtype=torch.int64)
    effort = l2_effort(lambda x: x.sum(dim=(1, 2, 3))[:, None], images(), labels)
    assert torch.equal(effort, torch.full((6,), torch.inf))


def test_the_l2_effort_is_of_the_size_of_foolbox_s_deepfool():
    foolbox = pytest.importorskip("foolbox")
    model, clean = network(), images(6, 60, 200)
    labels = model(clean).argmax(dim=1)
    theirs_model = foolbox.PyTorchModel(model, bounds=(0, 255), device="cpu")
    attack = foolbox.attacks.L2DeepFoolAttack(overshoot=0.02)
    theirs = attack.run(theirs_model, clean, foolbox.criteria.Misclassification(labels))
    expected = (theirs - clean).flatten(1).norm(dim=1)
    ours = l2_effort(model, clean, labels)
    assert (ours <= 1.001 * expected).all() and (ours >= 0.9 * expected).all()


def test_every_module_gets_its_own_mode_back():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
    model[0].eval()
    with pytest.raises(KeyError), evaluation_mode(model):
        assert not any(m.training for m in model.modules())
        raise KeyError
    assert [m.training for m in model.modules()] == [True, False, True]


def test_an_attack_is_built_by_name():
    assert build_attack("", 0, 0, 0) is None
    model, clean = network(), images()
    expected = {
        "FGSM": fgsm(model, clean, LABELS, eps=4),
        "BIM": bim(model, clean, LABELS, eps=4, step=1, iterations=3),
    }
    for name, adversarial in expected.items():
        assert torch.equal(build_attack(name, 4, 1, 3)(model, clean, LABELS), adversarial)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("PGD", 8, 2, 10),
            r"SOLVER.ADVERSARIAL.ATTACK is 'PGD'; it must be one of .*'FGSM', 'BIM'",
        ),
        (("FGSM", 0, 2, 10), "SOLVER.ADVERSARIAL.EPS is 0"),
        (("FGSM", 256, 2, 10), "SOLVER.ADVERSARIAL.EPS is 256; .*at most 255"),
        (("BIM", 8, -1, 10), "SOLVER.ADVERSARIAL.STEP is -1"),
        (("BIM", 8, 2, 0), "SOLVER.ADVERSARIAL.ITERATIONS is 0"),
    ],
)
def test_an_impossible_attack_is_refused_by_its_key(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_attack(*arguments)
