"""Networks of timm, by name: randomly initialized, or with weights from a file."""

import argparse
from collections.abc import Mapping

import torch
from torch import nn

from d2_isonet.checkpoint.reading import WeightsError, read_state_dict
from d2_isonet.data.examples import image_files
from d2_isonet.data.image_folder import read_image
from d2_isonet.isometry.measures import linear_convolutions
from d2_isonet.modeling.stages import blocks_of
from d2_isonet.utils.messages import nearest

from .network import Network, initial_norms


def timm_network(args: argparse.Namespace) -> Network:
    """The network of --timm.

    Raises:
        ValueError: timm is not installed, has no such network; weights of another one; no image.
        FileNotFoundError: no such weights or folder.
    """
    try:
        import timm

        import d2_isonet.hub.timm_models  # noqa: F401 (our names, too)
    except ImportError as error:
        raise ValueError("--timm needs timm: pip install 'd2_isonet[timm]'") from error
    if not timm.is_model(args.timm):
        hint = nearest(args.timm, timm.list_models())
        raise ValueError(f"--timm: timm {timm.__version__} has no network {args.timm!r}{hint}")
    torch.manual_seed(args.seed)
    model = timm.create_model(args.timm, pretrained=False).eval()
    if args.weights:
        _load(model, args.weights)
    images, source = _images(model, args)
    return Network(
        title=f"{args.timm} of timm",
        weights=args.weights or f"as initialized (--seed {args.seed})",
        model=model,
        convolutions=linear_convolutions(model),
        blocks=blocks_of(model),
        forward=model.forward_features,
        images=images,
        image_source=source,
        notes=[] if args.weights else initial_norms(model),
    )


def _load(model: nn.Module, path: str) -> None:
    """All tensors but those of the last layer, whose classes may be others."""
    state, asked = read_state_dict(path), model.state_dict()
    head = (getattr(model, "default_cfg", None) or {}).get("classifier") or "no head"
    heads = (head,) if isinstance(head, str) else tuple(head)
    wanted = {name: x for name, x in asked.items() if not name.startswith(heads)}
    unfit = [n for n, x in wanted.items() if n not in state or state[n].shape != x.shape]
    strange = [n for n in state if n not in asked]
    if unfit or strange:
        raise WeightsError(
            f"{path} is not this network: {len(unfit)} of its {len(wanted)} tensors are missing or "
            f"of another shape{_first(unfit)}, {len(strange)} in the file are none of its"
            f"{_first(strange)}"
        )
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _first(names: list[str]) -> str:
    return f" ({names[0]}, ...)" if names else ""


def _images(model: nn.Module, args: argparse.Namespace) -> tuple[list[torch.Tensor], str]:
    """By timm's own transform of this network; noise without --images."""
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
