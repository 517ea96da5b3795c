"""Networks that a detectron2 yaml describes: ours, detectron2's own, those of other projects."""

import argparse
from collections.abc import Callable
from pathlib import Path

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.data.examples import find_examples
from d2_isonet.data.pixels import pixels_of
from d2_isonet.isometry.measures import linear_convolutions
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.execution import run_plainly
from d2_isonet.modeling.stages import chain_of, deepest_feature, trunk_of
from d2_isonet.preflight.network import check_names, outline

from .network import Network, initial_norms

# Not model_zoo.get_config_file, whose module needs pkg_resources, which new setuptools have not.
MODEL_ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
_UNKNOWN_CLASSES = 1000  # of a classifier whose config takes them from the data


def detectron2_network(args: argparse.Namespace) -> Network:
    """The network of --config-file (or of the config.yaml beside --weights).

    Raises:
        ValueError, FileNotFoundError: no such file, no network, weights of another one, no image.
    """
    file = config_file(args.config_file, args.weights)
    cfg = run_plainly(load_config(file, args.opts))
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier" and not cfg.MODEL.CLASSIFIER.NUM_CLASSES:
        cfg.MODEL.CLASSIFIER.NUM_CLASSES = _UNKNOWN_CLASSES
    model = _model(cfg, args)
    images, source = _images(cfg, args)
    notes = [] if args.weights else initial_norms(model)
    return Network(
        title=Path(file).stem if Path(file).stem != "config" else str(Path(file).parent),
        weights=args.weights or f"as initialized (--seed {args.seed})",
        model=model,
        convolutions=_convolutions(model, args.all),
        blocks=chain_of(model),
        forward=_forward(model),
        images=images,
        image_source=source,
        notes=notes + _left_out(model),
    )


def config_file(given: str | None, weights: str | None) -> str:
    """A yaml by its path or its name in detectron2's model zoo, or the one beside the weights.

    Raises:
        ValueError: neither is given, or there is none beside the weights.
    """
    if given:
        in_zoo = MODEL_ZOO / given
        return str(in_zoo) if in_zoo.is_file() and not Path(given).exists() else given
    if not weights:
        raise ValueError(
            "there is no network to look at: give --config-file FILE, --weights FILE with the "
            "config.yaml of its training beside it, or --timm NAME"
        )
    beside = Path(weights).resolve().parent / "config.yaml"
    if Path(weights).exists() and not beside.is_file():
        raise ValueError(
            f"{weights} does not tell strides and dilations, and there is no {beside}: give "
            "--config-file FILE"
        )
    return str(beside) if beside.is_file() else weights


def _model(cfg: CfgNode, args: argparse.Namespace) -> nn.Module:
    check_names(cfg)
    outline(cfg)  # errors that name a key
    torch.manual_seed(args.seed)
    model = build_model(cfg).eval()
    if not hasattr(model, "backbone"):
        raise ValueError(f"{cfg.MODEL.META_ARCHITECTURE} has no backbone to look at")
    if args.weights:
        build_checkpointer(cfg, model, trust_pickle=args.trust_pickle).load(args.weights, [])
    return model.eval()


def _convolutions(model: nn.Module, all_of_them: bool) -> dict:
    """Those of the backbone, a pyramid on it included, and of C4's res5; or all."""
    ours = ("backbone.", "roi_heads.res5.")
    convolutions = linear_convolutions(model)
    return {n: c for n, c in convolutions.items() if all_of_them or n.startswith(ours)}


def _left_out(model: nn.Module) -> list[str]:
    number = sum(isinstance(module, DecoupledConv2d) for module in model.modules())
    if not number:
        return []
    return [f"{number} decoupled convolutions are left out: they are no linear maps."]


def _forward(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Through the trunk and, in a C4 detector, on through res5, as if the map were one region."""
    _, trunk = trunk_of(model)
    res5 = getattr(getattr(model, "roi_heads", None), "res5", None)

    def forward(images: torch.Tensor) -> torch.Tensor:
        features = trunk(images)[deepest_feature(trunk)]
        return features if res5 is None else res5(features)

    return forward


def _images(cfg: CfgNode, args: argparse.Namespace) -> tuple[list[torch.Tensor], str]:
    """Resized and normalized as in an evaluation of this network."""
    folder, what = args.images, ""
    if folder and Path(folder).is_file():
        root = args.image_root or str(Path(folder).parent)
        register_coco_files("analyzed", folder, root)
        cfg.DATASETS.TEST, folder, what = ("analyzed",), None, f" ({args.images})"
    examples = find_examples(cfg, folder, args.num_images)
    if what and "NOISE" in examples.source:
        raise ValueError(f"--images {args.images}: none of its images is in --image-root {root}")
    normalize = pixels_of(cfg).normalize
    return [normalize(image)[None] for image in examples.images], examples.source + what
