"""The results of a robustness evaluation as a table, a json file, and a picture."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

from d2_isonet.evaluation.gradient_masking import is_guessing
from d2_isonet.evaluation.robustness import run_attack
from d2_isonet.modeling.classifier import ImageClassifier

COLUMNS = ("attack", "access", "eps", "step", "iterations", "accuracy")


def format_results(results: dict) -> str:
    """The table and the sentences of one evaluation, as text."""
    clean = ("none", "", 0.0, "", "", results["clean"])
    rows = [clean, *(tuple(row[key] for key in COLUMNS) for row in results["rows"])]
    lines = [
        f"{results['num_images']} images, {results['num_classes']} classes; eps and step in pixel "
        "values of 0-255, accuracy in %",
        tabulate(rows, headers=COLUMNS, floatfmt=("", "", "g", "g", "", ".1f")),
        _effort_line(results["l2_effort"]),
        *_masking_lines(results),
    ]
    return "\n".join(filter(None, lines))


def _effort_line(effort: dict) -> str:
    if effort["num_images"] == 0:
        return ""
    median, mean, relative = (
        "none" if effort[key] is None else f"{effort[key]:.4g}"
        for key in ("median", "mean", "relative_median")
    )
    return (
        f"L2 effort to fool it (DeepFool, {effort['num_images']} images classified right): median "
        f"{median} pixel values, mean {mean}, median over the image's norm {relative}; not fooled: "
        f"{effort['not_fooled']:.1f} %"
    )


def _masking_lines(results: dict) -> list[str]:
    signs = results["gradient_masking"]
    if is_guessing(results):
        return ["It guesses even without an attack, so attacks say nothing about robustness."]
    if not signs:
        return ["No tested sign of gradient masking was found."]
    return ["This looks like gradient masking, not like robustness:", *(f"- {s}" for s in signs)]


def write_report(
    results: dict, model: ImageClassifier, batch: list[dict], classes: list[str], order: str
) -> None:
    """Write robustness.json and robustness.png into results["output"].

    Args:
        model: the ImageClassifier, in eval mode.
        batch: dicts with "image" and "label"; the first four are drawn.
        order: of the images' channels, "RGB" or "BGR".
    """
    folder = Path(results["output"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "robustness.json").write_text(json.dumps(results, indent=1) + "\n")
    columns = list(_examples(results, model, batch[:4], classes))
    figure = Figure(figsize=(1 + 2 * len(columns), 14), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 1))
    axes = figure.add_subfigure(grid[0]).subplots(len(batch[:4]), len(columns), squeeze=False)
    for column, (images, titles) in zip(axes.T, columns, strict=True):
        _draw_column(column, images.flip(1) if order == "BGR" else images, titles)
    _draw_curves(figure.add_subfigure(grid[1]).subplots(), results)
    figure.savefig(folder / "robustness.png", dpi=80)
    print(f"Written: {folder}/robustness.json, {folder}/robustness.png")


def _examples(
    results: dict, model: ImageClassifier, batch: list[dict], classes: list[str]
) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Pixels (N, 3, H, W) and titles of each column of the picture.

    First the images; then, for each white-box attack with the largest requested eps, its examples
    and their amplified changes.
    """

    def names(images: torch.Tensor) -> list[str]:
        with torch.no_grad():
            return [classes[i] for i in model.pixel_logits(images).argmax(dim=1).tolist()]

    images = model.stack_images(batch).float()
    labels = torch.tensor([x["label"] for x in batch], device=model.device)
    pairs = zip(batch, names(images), strict=True)
    yield images, [f"{classes[x['label']]}, taken for\n{name}" for x, name in pairs]
    for setting in results["rows"]:
        if setting["access"] != "white-box" or setting["eps"] != max(results["eps"]):
            continue
        adversarial = run_attack(setting, model, images, labels)
        title = f"{setting['attack'].upper()}, eps {setting['eps']:g}"
        yield adversarial, [f"{title}\n{name}" for name in names(adversarial)]
        least = max(setting["eps"], 1e-6)
        change = 127.5 + (adversarial - images) * 127.5 / least
        yield change, [f"change x {127.5 / least:.3g}"] * len(batch)


def _draw_column(axes: np.ndarray, images: torch.Tensor, titles: list[str]) -> None:
    pixels = images.clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    for axis, image, title in zip(axes, pixels, titles, strict=True):
        axis.set_axis_off()
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=9)


def _draw_curves(axis: Axes, results: dict) -> None:
    """Accuracy over eps, a line for each attack and access."""
    for attack, access in dict.fromkeys((r["attack"], r["access"]) for r in results["rows"]):
        rows = [r for r in results["rows"] if (r["attack"], r["access"]) == (attack, access)]
        points = sorted({0.0: results["clean"], **{r["eps"]: r["accuracy"] for r in rows}}.items())
        axis.plot(*zip(*points, strict=True), marker="o", label=f"{attack.upper()}, {access}")
    axis.axhline(100 / results["num_classes"], color="grey", linestyle=":", label="chance")
    ticks = sorted({0.0, *(row["eps"] for row in results["rows"])})
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axis.set_xlim(left=0)
    axis.set(xlabel="eps, pixel values of 0-255", ylabel="accuracy, %", ylim=(-2, 102))
    axis.legend()
