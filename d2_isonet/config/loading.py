"""Loads a yaml file and KEY VALUE pairs into a config, with readable errors."""

import contextlib
import math
import re
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode, get_cfg

from d2_isonet.utils.messages import UserError, nearest

from .defaults import add_isonet_config
from .options import check_sizes, dotted_items
from .yaml_files import check_yaml_files

_NEVER_NULL = (bool, int, float, list, tuple)
# Numbers that may be missing: no scale, or the value of SOLVER.WEIGHT_DECAY and BASE_LR.
_MAY_BE_NULL = {
    "MODEL.ISONET.RESIDUAL_SCALE",
    "SOLVER.WEIGHT_DECAY_NORM",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.BIAS_LR_FACTOR",
}
_LONGEST_MESSAGE = 1000  # characters; yacs repeats the value, however long


def load_config(config_file: str, opts: list[str]) -> CfgNode:
    """Merge detectron2's defaults, ours, the yaml (never executed) and KEY VALUE or KEY=VALUE.

    A whole number becomes a float if the default is one (SOLVER.ORTHO_COEFF 0), and null None.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: a key is unknown, a value has another type, a number is missing or nan, the last
            key of the pairs has no value, or the yaml is broken or asks for Python objects.
    """
    cfg = get_cfg()
    add_isonet_config(cfg)
    defaults = cfg.clone()
    if config_file:
        check_yaml_files(config_file)
        with _explained(config_file, cfg):
            _merge_file(cfg, config_file)
            _check_numbers(cfg, defaults)
    pairs = _split_pairs(opts)
    with _explained("command line", cfg):
        cfg.merge_from_list(_with_numbers(pairs, cfg, defaults))
        _check_numbers(cfg, defaults)
    check_sizes(cfg)
    return cfg


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    content = CfgNode.load_yaml_with_base(config_file, allow_unsafe=False)
    if content.get("VERSION", cfg.VERSION) != cfg.VERSION:  # detectron2 upgrades old ones
        cfg.merge_from_file(config_file, allow_unsafe=False)
        return
    _integers_to_floats(content, cfg)
    cfg.merge_from_other_cfg(CfgNode(content))


def _integers_to_floats(content: dict, defaults: CfgNode) -> None:
    for key, value in content.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, CfgNode):
            _integers_to_floats(value, default)
        elif isinstance(default, float) and _is_whole(value):
            content[key] = float(value)


def _is_whole(value: object) -> bool:
    """Whether `value` is a whole number, or the text of one, which yacs would read as an int."""
    is_text = isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value)
    return type(value) is int or bool(is_text)


def _with_numbers(pairs: list[str], cfg: CfgNode, defaults: CfgNode) -> list:
    """The pairs with floats for whole numbers if cfg has a float, and None for yaml's null."""
    values, usual = dict(dotted_items(cfg)), dict(dotted_items(defaults))
    converted: list[str | float | None] = [*pairs]
    for i in range(0, len(pairs), 2):
        key, text = pairs[i : i + 2]
        if isinstance(values.get(key), float) and _is_whole(text):
            converted[i + 1] = float(text)
        elif text == "null" and (key in _MAY_BE_NULL or isinstance(usual.get(key), _NEVER_NULL)):
            converted[i + 1] = None
    return converted


def _check_numbers(cfg: CfgNode, defaults: CfgNode) -> None:
    """Raise UserError if a number or list is missing (an empty line in a yaml) or a number nan."""
    usual = dict(dotted_items(defaults))
    for key, value in dotted_items(cfg):
        default = usual.get(key)
        if value is None and isinstance(default, _NEVER_NULL) and key not in _MAY_BE_NULL:
            raise UserError(f"{key} has no value", f"the default is {default}")
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and math.isnan(number):
                raise UserError(f"{key} is not a number", f"the default is {default}")
            if isinstance(number, int) and abs(number) >= 1 << 63:
                raise UserError(f"{key} is {number:.3g}, too large a number", "lower it")


@contextlib.contextmanager
def _explained(source: str, cfg: CfgNode) -> Iterator[None]:
    """Turn what yacs and yaml raise into one UserError that names the source."""
    try:
        yield
    except (KeyError, AssertionError, ValueError) as error:
        raise UserError(f"{source}: {_explain(error, cfg)}") from error
    except (TypeError, AttributeError) as error:  # a key that is a number, a list for a section
        raise UserError(f"{source}: this is no yaml of KEY: VALUE lines ({error})") from error
    except (RecursionError, MemoryError) as error:  # from literal_eval
        raise UserError(f"{source}: a value is nested too deeply") from error


def _split_pairs(opts: list[str]) -> list[str]:
    pairs: list[str] = []
    for word in opts or []:
        if re.search(r"\d{100}", word):
            raise UserError(f"{word[:40]}... has a number of 100 or more digits", "correct it")
        if word.startswith("--"):
            raise UserError(f"{word} stands after the KEY VALUE pairs", "put it before them")
        is_key = len(pairs) % 2 == 0
        if word == "=" or (is_key and word.startswith("=")):
            raise UserError(f"there is a space beside the = of {word!r}", "write KEY=VALUE")
        pairs += word.split("=", 1) if is_key and "=" in word else [word]
    if len(pairs) % 2:
        raise UserError(f"the last of the KEY VALUE pairs, {pairs[-1]!r}, has no value")
    return pairs


def _explain(error: Exception, cfg: CfgNode) -> str:
    """The message of yacs or yaml, and the key that was probably meant."""
    message = str(error.args[0])[:_LONGEST_MESSAGE] if error.args else type(error).__name__
    key = message.replace("'", " ").split()[-1]
    if "xistent" in message:
        return message + nearest(key, dict(dotted_items(cfg)))
    types = re.search(r"Type mismatch \(<class '(\w+)'> vs. <class '(\w+)'>\)", message)
    value = dict(dotted_items(cfg)).get(key)
    if types and value is not None:
        message += f"; it must be a {types[1]} such as {value!r}, not a {types[2]}"
    if "tuple" in message and "str" in message:
        return f"{message}; a list of names is written {key} \"('my_set',)\""
    return message


def fall_back_to_cpu(cfg: CfgNode) -> bool:
    """Set cfg.MODEL.DEVICE to "cpu" if it names a GPU and there is none; return whether it did."""
    falls_back = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    if falls_back:
        cfg.MODEL.DEVICE = "cpu"
    return falls_back
