"""Builds the network to analyze: from a detectron2 yaml of any project, or by its name in timm."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from d2_isonet.checkpoint.checkpointer import build_checkpointer
from d2_isonet.checkpoint.reading import WeightsError, read_state_dict
from d2_isonet.config.loading import load_config
from d2_isonet.data.datasets import register_coco_files
from d2_isonet.data.examples import find_examples, image_files
from d2_isonet.data.image_file import read_image
from d2_isonet.data.pixels import pixels_of
from d2_isonet.isometry.criterion import Convolution
from d2_isonet.isometry.measures import linear_convolutions
from d2_isonet.layers.decoupled_conv import DecoupledConv2d
from d2_isonet.modeling.execution import run_plainly
from d2_isonet.modeling.stages import RES5, blocks_of, chain_of, deepest_feature, res5_of, trunk_of
from d2_isonet.preflight.network import check_names, outline
from d2_isonet.utils.command_line import require_packages
from d2_isonet.utils.messages import UserError, nearest

# model_zoo.get_config_file needs pkg_resources, which new versions of setuptools lack.
MODEL_ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
_UNKNOWN_CLASSES = 1000  # if the config takes the number of classes from the data


@dataclass(frozen=True)
class Network:
    """A network, its images, and what a report says about them."""

    title: str  # its name in tables and titles
    model: nn.Module  # in eval mode
    convolutions: Mapping[str, Convolution]  # the analyzed ones, by name
    blocks: dict[str, nn.Module]  # the chain through which a signal runs
    # normalized images (1, C, H, W) -> the output of the last block
    forward: Callable[[torch.Tensor], torch.Tensor]
    images: list[torch.Tensor]  # (1, C, H, W) each, normalized; their sizes differ
    image_source: str
    weights: str  # their file, or that they are as initialized
    notes: list[str]  # that a reader of the numbers needs


def network_of(args: argparse.Namespace) -> Network:
    """The network of --timm, of --config-file, or of the config.yaml beside --weights.

    Raises:
        UserError, FileNotFoundError: a file or timm is missing, timm has no such network, the
            weights belong to another network, or there is no image.
    """
    return _timm_network(args) if args.timm else _detectron2_network(args)


def _weights_and_notes(model: nn.Module, args: argparse.Namespace) -> tuple[str, list[str]]:
    """Let batch norms of an untrained network normalize by the image; return the last two fields.

    Without training, a ResNet with the stored statistics doubles its signal in each block.
    """
    notes, modules = [], list(model.modules())
    batch_norms = [module for module in modules if isinstance(module, _BatchNorm)]
    if batch_norms and not args.weights:
        for batch_norm in batch_norms:
            batch_norm.train()
        notes.append("Batch norms use the statistics of each image: there are none of a training.")
    if any(type(x).__name__ == "FrozenBatchNorm2d" for x in modules) and not args.weights:
        notes.append(
            "FrozenBatchNorm2d without trained statistics changes nothing: without --weights, the "
            "signals are those of a network without norms."
        )
    number = sum(isinstance(module, DecoupledConv2d) for module in modules)
    if number:
        notes.append(f"{number} decoupled convolutions are skipped: they are not linear maps.")
    return args.weights or f"as initialized (--seed {args.seed})", notes


def _detectron2_network(args: argparse.Namespace) -> Network:
    file = config_file(args.config_file, args.weights)
    cfg = run_plainly(load_config(file, args.opts))
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier" and not cfg.MODEL.CLASSIFIER.NUM_CLASSES:
        cfg.MODEL.CLASSIFIER.NUM_CLASSES = _UNKNOWN_CLASSES
    model = _model(cfg, args)
    _, trunk = trunk_of(model)
    res5, feature = res5_of(model) or nn.Identity(), deepest_feature(trunk)

    def forward(images: torch.Tensor) -> torch.Tensor:
        """Through the trunk and, in a C4 detector, res5, as if the map were one region."""
        return res5(trunk(images)[feature])

    # of the backbone with its pyramid and of C4's res5
    analyzed = ("",) if args.all else ("backbone.", RES5)
    convolutions = {n: c for n, c in linear_convolutions(model).items() if n.startswith(analyzed)}
    title = Path(file).stem if Path(file).stem != "config" else str(Path(file).parent)
    return Network(title, model, convolutions, chain_of(model), forward, *_images(cfg, args),
                   *_weights_and_notes(model, args))  # fmt: skip


def config_file(given: str | None, weights: str | None) -> str:
    """A yaml by its path or its name in detectron2's model zoo, or the one beside the weights.

    Raises:
        UserError: neither is given, or there is no config.yaml beside the weights.
    """
    if given:
        in_zoo = MODEL_ZOO / given
        return str(in_zoo) if in_zoo.is_file() and not Path(given).exists() else given
    if not weights:
        raise UserError(
            "there is no network to analyze",
            "give --config-file FILE, --weights FILE with the config.yaml of its training beside "
            "it, or --timm NAME",
        )
    beside = Path(weights).resolve().parent / "config.yaml"
    if Path(weights).exists() and not beside.is_file():
        raise UserError(
            f"{weights} does not hold strides and dilations, and there is no {beside}",
            "give --config-file FILE",
        )
    return str(beside) if beside.is_file() else weights


def _model(cfg: CfgNode, args: argparse.Namespace) -> nn.Module:
    check_names(cfg)
    outline(cfg)  # its errors name a key
    torch.manual_seed(args.seed)
    model = build_model(cfg).eval()
    if not hasattr(model, "backbone"):
        raise UserError(f"{cfg.MODEL.META_ARCHITECTURE} has no backbone to analyze")
    if args.weights:
        build_checkpointer(cfg, model, trust_pickle=args.trust_pickle).load(args.weights, [])
    return model.eval()


def _images(cfg: CfgNode, args: argparse.Namespace) -> tuple[list[torch.Tensor], str]:
    """Images, resized and normalized as in an evaluation of this network, and their source."""
    folder, what = args.images, ""
    if folder and Path(folder).is_file():
        root = args.image_root or str(Path(folder).parent)
        register_coco_files("analyzed", folder, root)
        cfg.DATASETS.TEST, folder, what = ("analyzed",), None, f" ({args.images})"
    examples = find_examples(cfg, folder, args.num_images)
    if what and "NOISE" in examples.source:
        raise UserError(f"--images {args.images}: none of its images is in {root}")
    normalize = pixels_of(cfg).normalize
    return [normalize(image)[None] for image in examples.images], examples.source + what


def _timm_network(args: argparse.Namespace) -> Network:
    require_packages("timm", needed_by="--timm")
    import timm

    import d2_isonet.hub.timm_models  # noqa: F401 (our names, too)

    if not timm.is_model(args.timm):
        hint = nearest(args.timm, timm.list_models())
        raise UserError(f"--timm: timm {timm.__version__} has no network {args.timm!r}{hint}")
    torch.manual_seed(args.seed)
    model: Any = timm.create_model(args.timm, pretrained=False).eval()
    if args.weights:
        _load(model, args.weights)
    return Network(f"{args.timm} of timm", model, linear_convolutions(model), blocks_of(model),
                   model.forward_features, *_timm_images(model, args),
                   *_weights_and_notes(model, args))  # fmt: skip


def _load(model: nn.Module, path: str) -> None:
    """Load all tensors but those of the last layer, whose classes may differ."""
    state, own = read_state_dict(path), model.state_dict()
    head = (getattr(model, "default_cfg", None) or {}).get("classifier") or "no head"
    heads = (head,) if isinstance(head, str) else tuple(head)
    wanted = {name: x for name, x in own.items() if not name.startswith(heads)}
    unfit = [n for n, x in wanted.items() if n not in state or state[n].shape != x.shape]
    unknown = [n for n in state if n not in own]
    if unfit or unknown:
        examples = [f" ({names[0]}, ...)" if names else "" for names in (unfit, unknown)]
        raise WeightsError(
            f"{path} is not this network: {len(unfit)} of its {len(wanted)} tensors are missing or "
            f"have another shape{examples[0]}, and it does not have {len(unknown)} tensors of "
            f"the file{examples[1]}"
        )
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _timm_images(model: nn.Module, args: argparse.Namespace) -> tuple[list[torch.Tensor], str]:
    """Images by timm's own transform of this network, and their source; without --images, noise."""
    from timm.data import create_transform, resolve_data_config

    description: Mapping = resolve_data_config({}, model=model)
    if not args.images:
        generator = torch.Generator().manual_seed(args.seed)
        size = (1, *description["input_size"])
        noise = [torch.randn(size, generator=generator) for _ in range(args.num_images)]
        return noise, "of NOISE (--images FOLDER gives real ones)"
    transform = create_transform(**description)
    files = image_files(args.images, args.num_images)
    return [transform(read_image(file))[None] for file in files], f"of {args.images}"
