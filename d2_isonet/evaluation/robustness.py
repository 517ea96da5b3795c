"""Robustness of a classifier: its accuracy under attacks, and the L2 effort that fools it."""

import itertools
import math
from collections.abc import Iterable

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.config.loading import fall_back_to_cpu, load_config
from d2_isonet.config.options import check_name
from d2_isonet.data.datasets import load_registered
from d2_isonet.data.shards.index import ShardedImages
from d2_isonet.modeling.attacks import bim, input_gradient, l2_effort
from d2_isonet.modeling.classifier import ImageClassifier
from d2_isonet.utils.messages import UserError

# Half the range of a pixel value: every image can become grey, so a working attack succeeds.
UNBOUNDED_EPS = 127.5


def load_classifier(cfg: CfgNode, weights: str, num_classes: int) -> ImageClassifier:
    """The classifier of `cfg` in eval mode, with all its tensors from the file `weights`.

    Raises UserError if `cfg` is not that of an ImageClassifier or the weights do not match it, and
    FileNotFoundError if the file does not exist.
    """
    if cfg.MODEL.META_ARCHITECTURE != "ImageClassifier":
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}",
            "attacks need an 'ImageClassifier' (a yaml of configs/imagenet)",
        )
    fall_back_to_cpu(cfg)
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = num_classes
    model = build_model(cfg)
    build_checkpointer(cfg, model, cfg.DATASETS.TEST, strict=True).load(weights)
    return model.eval()


def load_source(
    config_file: str, opts: list[str], weights: str, target: CfgNode, num_classes: int
) -> ImageClassifier:
    """The classifier whose gradients a black-box attack takes.

    Raises UserError if its order of channels differs from that of `target`, the attacked network,
    and the errors of `load_classifier`.
    """
    cfg = load_config(config_file, opts)
    if cfg.INPUT.FORMAT != target.INPUT.FORMAT:
        raise UserError(
            f"{config_file}: INPUT.FORMAT is {cfg.INPUT.FORMAT}, that of the attacked network "
            f"{target.INPUT.FORMAT}",
            "a black-box attack needs two networks of one channel order",
        )
    cfg.DATASETS.TEST = target.DATASETS.TEST
    return load_classifier(cfg, weights, num_classes)


def choose_images(names: Iterable[str], count: int, seed: int) -> tuple[list[dict], list[str]]:
    """(at most `count` random dicts of the data sets `names`, class names).

    Raises UserError if `count` is not positive or the images are in shards, and the errors of
    `load_registered`.
    """
    if count < 1:
        raise UserError(f"The number of images is {count}", "it must be positive")
    dicts, classes = load_registered(names)
    if isinstance(dicts, ShardedImages):
        raise UserError(
            f"{dicts.name} is a set of shards, which cannot be read in any order",
            "give --data-root the folder of images",
        )
    order = torch.randperm(len(dicts), generator=torch.Generator().manual_seed(seed))
    return [dicts[i] for i in order[:count].tolist()], classes


def attack_settings(
    names: Iterable[str], eps_values: Iterable[float], step: float | None, iterations: int
) -> list[dict]:
    """{"attack", "eps", "step", "iterations"} for each of `names` with each of `eps_values`.

    Args:
        names: "fgsm" (one step of size eps) or "bim".
        eps_values: in pixel values of 0-255.
        step: of bim, in pixel values; None means 2.5 * eps / iterations, which can reach every
            point within eps (Madry et al. 2018).

    Raises UserError if a name is unknown, eps or step is not in the range of pixel values, or
    iterations is not positive.
    """
    names, eps_values = list(names), [float(eps) for eps in eps_values]
    for name in names:
        check_name("The attack", name, ("fgsm", "bim"))
    if any(not 0 <= eps <= 255 for eps in eps_values):
        raise UserError(f"eps is {eps_values}", "each must be in pixel values, from 0 to 255")
    if iterations < 1 or (step is not None and not 0 < step <= 255):
        raise UserError(
            f"step is {step} and iterations {iterations}",
            "both must be positive, and a step in pixel values, at most 255",
        )
    settings = []
    for name, eps in itertools.product(names, eps_values):
        size, number = 2.5 * eps / iterations if step is None else step, iterations
        if name == "fgsm":
            size, number = eps, 1
        settings.append({"attack": name, "eps": eps, "step": size, "iterations": number})
    return settings


def run_attack(
    setting: dict, model: ImageClassifier, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Adversarial (N, C, H, W) by the gradients of `model`; images (N, C, H, W), range 0-255."""
    options = {key: setting[key] for key in ("eps", "step", "iterations")}
    return bim(model.pixel_logits, images, labels, **options)  # FGSM is BIM with one step of eps


def evaluate_robustness(
    model: ImageClassifier,
    batches: Iterable[list[dict]],
    settings: list[dict],
    source: ImageClassifier | None = None,
    num_effort_images: int = 100,
) -> dict:
    """Accuracy in percent, clean and under every attack, and the L2 effort that fools `model`.

    Args:
        model: the attacked network, in eval mode.
        batches: of dicts with "image" (C, H, W), range 0-255, and "label".
        settings: of `attack_settings`. Each attack runs white-box and, with the gradients of the
            network `source`, black-box. The last of the "rows" is an attack without a bound.
        num_effort_images: the effort is measured on the correct ones among the first images, up to
            this number.

    Raises FloatingPointError if logits of `model` or `source` are NaN or infinite.
    """
    sources = {"white-box": model, **({} if source is None else {"black-box": source})}
    rows = _with_access(settings, sources)
    numbers, efforts, count = [], [torch.zeros(0, 2)], 0
    for batch in batches:
        images = model.stack_images(batch)
        labels = torch.tensor([x["label"] for x in batch], device=model.device)
        numbers.append(_attack(sources, rows, images, labels))
        if count < num_effort_images:
            first = slice(num_effort_images - count)
            efforts.append(_efforts(model, images[first], labels[first]))
        count += len(batch)
    dead, clean, *accuracies = (100 * sum(x) / count for x in zip(*numbers, strict=True))
    return {
        "clean": clean,
        "rows": [{**row, "accuracy": x} for row, x in zip(rows, accuracies, strict=True)],
        "zero_gradients": dead,
        "l2_effort": _summary(torch.cat(efforts)),
        "num_images": count,
        "num_classes": model.linear.out_features,
    }


def _with_access(settings: list[dict], accesses: Iterable[str]) -> list[dict]:
    """Every setting with every access, and a white-box BIM without an effective bound.

    The accuracy that the latter leaves is what the attack has missed.
    """
    rows = [{**setting, "access": access} for setting in settings for access in accesses]
    iterations = max([10, *(setting["iterations"] for setting in settings)])
    (unbounded,) = attack_settings(["bim"], [UNBOUNDED_EPS], None, iterations)
    return rows if unbounded in settings else [*rows, {**unbounded, "access": "white-box"}]


def _attack(
    sources: dict[str, ImageClassifier],
    rows: list[dict],
    images: torch.Tensor,
    labels: torch.Tensor,
) -> list[int]:
    """The numbers of images with a zero gradient, right without attack, and right under each row's.

    `sources` has the networks with the gradients by access; "white-box" is the attacked one.
    """
    model = sources["white-box"]
    if "black-box" in sources:
        _finite_logits(sources["black-box"], images, "the source of black-box attacks")
    gradient = input_gradient(model.pixel_logits, images.float(), labels)
    dead = int((gradient == 0).flatten(1).all(dim=1).sum())
    attacked = (run_attack(row, sources[row["access"]], images, labels) for row in rows)
    logits = (_finite_logits(model, x) for x in (images, *attacked))
    return [dead, *(int((x.argmax(dim=1) == labels).sum()) for x in logits)]


@torch.no_grad()
def _finite_logits(
    model: ImageClassifier, images: torch.Tensor, role: str = "the attacked network"
) -> torch.Tensor:
    logits = model.pixel_logits(images)
    if not bool(logits.isfinite().all()):
        raise FloatingPointError(
            f"NaN or infinite logits of {role}: its weights have diverged; give weights of a "
            "training that converged"
        )
    return logits


def _efforts(model: ImageClassifier, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(M, 2) for M correctly classified images: L2 effort in pixel values, effort / image norm."""
    with torch.no_grad():
        right = model.pixel_logits(images).argmax(dim=1) == labels
    if not right.any():
        return torch.zeros(0, 2)
    efforts = l2_effort(model.pixel_logits, images[right], labels[right])
    norms = images[right].float().flatten(1).norm(dim=1).clamp_min(1)
    return torch.stack([efforts, efforts / norms], dim=1).cpu()


def _summary(efforts: torch.Tensor) -> dict:
    """Medians of (M, 2) efforts, and means over the fooled images; None if there are no images."""
    fooled = efforts[efforts[:, 0].isfinite()]
    mean = fooled.mean(dim=0)  # NaN if there are none
    median = efforts.median(dim=0).values if len(efforts) else mean
    names = ("median", "mean", "relative_median", "relative_mean")
    values = torch.stack([median, mean], dim=1).flatten().tolist()
    return {
        # None, as json has no infinity (most images were not fooled) and no NaN
        **{n: x if math.isfinite(x) else None for n, x in zip(names, values, strict=True)},
        "not_fooled": 100 * (1 - len(fooled) / max(1, len(efforts))),
        "num_images": len(efforts),
    }
