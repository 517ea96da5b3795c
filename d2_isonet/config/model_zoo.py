"""The configs that come with d2_isonet, by name."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from d2_isonet.utils.messages import MissingFileError, UserError, nearest

if TYPE_CHECKING:
    from detectron2.config import CfgNode
_PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """The folder of the yaml files, in the package or beside it; else raises FileNotFoundError."""
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (folder / "Base-ISONet.yaml").is_file():
            return folder
    raise MissingFileError(
        f"d2_isonet's configs are neither in {_PACKAGE} nor in {_PACKAGE.parent}: install the "
        "package again, or use the whole repository"
    )


def config_names() -> list[str]:
    """Every name that `get_config` knows, such as "risonet50_c4" or "imagenet/risonet50"."""
    folder = config_folder()
    files = sorted(x for x in folder.rglob("*.yaml") if not x.name.startswith("Base"))
    return [x.relative_to(folder).with_suffix("").as_posix() for x in files]


def get_config_file(name: str) -> str:
    """The path of the yaml file of that name, for `--config-file`, `_BASE_` or `load_config`.

    "lazy/mask_rcnn_risonet50_fpn", with or without its suffix .py, is a LazyConfig.

    Raises:
        UserError: there is no such config; the message has the nearest names.
    """
    stem = re.sub(r"\.(yaml|py)$", "", name)
    files = [config_folder() / f"{stem}{suffix}" for suffix in (".yaml", ".py")]
    file = next((x for x in files if x.is_file()), None)
    if not stem or ".." in Path(stem).parts or file is None:
        listed = "; config_names() of d2_isonet.config.model_zoo lists them"
        raise UserError(f"there is no config {name!r}{nearest(stem, all_names(), listed)}")
    return str(file)


def all_names() -> list[str]:
    """`config_names()`, and the names of the LazyConfigs."""
    lazy = (config_folder() / "lazy").glob("[!_]*_*.py")
    return [*config_names(), *(f"lazy/{x.stem}" for x in sorted(lazy))]


def get_config(name: str, opts: Sequence[str] = ()) -> "CfgNode":
    """detectron2's defaults, this project's keys and the config of that name, ready to use.

    MODEL.DEVICE is "cpu" if there is no GPU. MODEL.WEIGHTS is the yaml's: a file that your
    pretraining writes. Set it to your file, or to "".

    Args:
        opts: KEY, VALUE, ... or KEY=VALUE, ... as on the command line.

    Raises:
        UserError: there is no such config, or one of the pairs is wrong.
    """
    from .loading import fall_back_to_cpu, load_config

    cfg = load_config(get_config_file(name), list(opts))
    fall_back_to_cpu(cfg)
    return cfg
