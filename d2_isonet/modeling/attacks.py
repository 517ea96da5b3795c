"""Adversarial examples by the network's own gradient, in pixel values of 0-255."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2_isonet.config.options import check_name
from d2_isonet.utils.messages import UserError

# (N, num_classes) from images (N, C, H, W) of range 0-255; differentiable
Logits = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode, and afterwards every module in its previous mode."""
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def input_gradient(logits: Logits, images: Tensor, labels: Tensor) -> Tensor:
    """d(sum of cross-entropies) / d(images), (N, C, H, W); no parameter's .grad changes.

    With the sum, unlike the mean, an image's gradient does not depend on the size of the batch.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        loss = F.cross_entropy(logits(images), labels, reduction="sum")
        return torch.autograd.grad(loss, images)[0]


def bim(
    logits: Logits, images: Tensor, labels: Tensor, *, eps: float, step: float, iterations: int
) -> Tensor:
    """Basic iterative method: x <- project(x + step * sign(dL/dx)), `iterations` times.

    Kurakin et al. 2017, "Adversarial examples in the physical world", eq. 2; no random start.

    Args:
        images: (N, C, H, W), range 0-255.
        labels: (N,), the true classes.
        eps: largest change of a pixel value, also after rounding to float32.
        step: change in one iteration, in pixel values.

    Returns:
        (N, C, H, W), float32, within eps of `images` and within [0, 255].
    """
    low, high = _bounds(images, eps)
    adversarial = images.float()
    for _ in range(iterations):
        gradient = input_gradient(logits, adversarial, labels)
        adversarial = (adversarial + step * gradient.sign()).clamp(low, high)
    return adversarial


def fgsm(logits: Logits, images: Tensor, labels: Tensor, *, eps: float) -> Tensor:
    """Fast gradient sign method: x + eps * sign(dL/dx), within [0, 255].

    Goodfellow et al. 2015, "Explaining and harnessing adversarial examples", section 4. It is one
    iteration of `bim` with a step of eps; arguments and result are those of `bim`.
    """
    return bim(logits, images, labels, eps=eps, step=eps, iterations=1)


def _bounds(images: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """float32 (N, C, H, W): the least and the greatest pixel values within eps and [0, 255]."""
    low, high = ((images.double() + sign * eps).clamp(0, 255) for sign in (-1, 1))
    # float() rounds to the nearest number; if that lies outside, take the next number inside
    low32, high32 = low.float(), high.float()
    low_inside, high_inside = torch.nextafter(low32, high32), torch.nextafter(high32, low32)
    low32 = torch.where(low32 < low, low_inside, low32)
    return low32, torch.where(high32 > high, high_inside, high32)


def l2_effort(
    logits: Logits,
    images: Tensor,
    labels: Tensor,
    *,
    iterations: int = 50,
    overshoot: float = 0.02,
    num_candidates: int = 10,
) -> Tensor:
    """(N,) L2 norm, in pixel values, of a small change that fools the classifier: DeepFool.

    Moosavi-Dezfooli et al. 2016, "DeepFool", algorithm 2: steps to the nearest boundary of the
    linearized classifier. Two things are added: every step stays within [0, 255], and bisection
    between the image and the result finds where the class changes, which removes the overshoot.
    The result is an upper bound of the least effort; it is exact for a linear classifier away from
    0 and 255.

    Args:
        images: (N, C, H, W), range 0-255.
        labels: (N,); the effort is 0 if the classifier is already wrong, and infinite if
            `iterations` do not fool it.
        num_candidates: number of other classes to try, those with the largest logits (10 in the
            paper's code).
    """
    clean = images.float()
    fooled, change = clean.clone(), torch.zeros_like(clean)
    active = _predict(logits, clean) == labels
    for _ in range(iterations):
        if not active.any():
            break
        start, total = clean[active], change[active]
        total = total + _deepfool_step(logits, fooled[active], labels[active], num_candidates)
        change[active] = total = (start + total).clamp(0, 255) - start
        fooled[active] = moved = (start + (1 + overshoot) * total).clamp(0, 255)
        active[active.clone()] = _predict(logits, moved) == labels[active]
    effort = (_bisect(logits, clean, fooled, labels) - clean).flatten(1).norm(dim=1)
    return effort.masked_fill(active, torch.inf)


@torch.no_grad()
def _predict(logits: Logits, images: Tensor) -> Tensor:
    return logits(images).argmax(dim=1)


def _deepfool_step(logits: Logits, images: Tensor, labels: Tensor, num_candidates: int) -> Tensor:
    """(N, C, H, W): the shortest way to the boundary of the classifier linearized at `images`."""
    tiny = torch.finfo(torch.float32).tiny
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        scores = logits(images)
        if scores.shape[1] == 1:  # a single class has no boundary
            return torch.zeros_like(images)
        own = scores.gather(1, labels[:, None])
        gaps = scores - own
        others = gaps.detach().scatter(1, labels[:, None], -torch.inf)
        candidates = others.topk(min(num_candidates, scores.shape[1] - 1), dim=1).indices
        gaps = gaps.gather(1, candidates)
        gradients = [
            torch.autograd.grad(gap.sum(), images, retain_graph=True)[0] for gap in gaps.unbind(1)
        ]
    normals = torch.stack(gradients, dim=1).flatten(2)  # (N, candidates, C * H * W)
    norms = normals.norm(dim=2).clamp_min(tiny)
    distances = (gaps.detach().abs() + 1e-4) / norms  # 1e-4: the paper's code, never a zero step
    nearest = distances.argmin(dim=1)
    rows = torch.arange(len(images), device=images.device)
    direction = normals[rows, nearest] / norms[rows, nearest, None]
    return (distances[rows, nearest, None].clamp_max(1e6) * direction).view_as(images)


def _bisect(logits: Logits, clean: Tensor, fooled: Tensor, labels: Tensor) -> Tensor:
    """The fooling images nearest to `clean` on the straight lines from `clean` to `fooled`."""
    low = clean.new_zeros(len(clean), 1, 1, 1)
    high = torch.ones_like(low)
    for _ in range(15):  # to 3e-5 of the line
        middle = (low + high) / 2
        predicted = _predict(logits, torch.lerp(clean, fooled, middle))
        wrong = (predicted != labels).view_as(high)
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return torch.lerp(clean, fooled, high)


def build_attack(attack: str, eps: float, step: float, iterations: int) -> Callable | None:
    """(logits, images, labels) -> adversarial images, for SOLVER.ADVERSARIAL; None for no attack.

    Args:
        attack: "", "FGSM" (which ignores step and iterations) or "BIM".

    Raises:
        UserError: another name, a number that is not positive, or an eps above 255.
    """
    check_name("SOLVER.ADVERSARIAL.ATTACK", attack, ("", "FGSM", "BIM"))
    if not attack:
        return None
    numbers = {"eps": eps}
    if attack == "BIM":
        numbers |= {"step": step, "iterations": iterations}
    for key, value in numbers.items():
        if not value > 0:
            raise UserError(f"SOLVER.ADVERSARIAL.{key.upper()} is {value}", "it must be positive")
    if eps > 255:
        raise UserError(f"SOLVER.ADVERSARIAL.EPS is {eps}", "it must be at most 255 (pixel values)")
    function: Callable = bim if attack == "BIM" else fgsm
    return functools.partial(function, **numbers)
