"""What a user types: arguments, the yaml file and KEY VALUE pairs; errors a person can read."""

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Iterator

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from .config import add_isonet_config


@contextlib.contextmanager
def readable_errors(of_this_process: bool = False) -> Iterator[None]:
    """End the process with the message alone where the user's input is at fault.

    detectron2 logs the traceback of an error in training; D2_ISONET_TRACEBACK=1 shows all.

    Args:
        of_this_process: the error may be this process's alone (its share of the images); False
            where all processes meet the same one and the main process's message is enough.
    """
    try:
        yield
    except (ValueError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if os.environ.get("D2_ISONET_TRACEBACK"):
            raise
        if of_this_process or comm.is_main_process():
            print(f"error: {_original_message(error)}", file=sys.stderr, flush=True)
        sys.exit(2)


def _original_message(error: Exception) -> str:
    """What a loader's process said, which torch wraps into its traceback."""
    message = str(error)
    if message.startswith("Caught ") and "DataLoader" in message:
        return message.rstrip().splitlines()[-1].split(": ", 1)[-1]
    return message


def argument_parser(description: str) -> argparse.ArgumentParser:
    """detectron2's arguments and --trust-pickle."""
    parser = default_argument_parser()
    parser.description = description
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="read .pkl weights, which can run any code their author put in",
    )
    return parser


def load_config(config_file: str, opts: list[str]) -> CfgNode:
    """detectron2's defaults, ours, the yaml (never executed), then KEY VALUE or KEY=VALUE pairs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown, a value of another type, the pairs do not pair, or the yaml
            is broken or asks for Python objects.
    """
    cfg = get_cfg()
    add_isonet_config(cfg)
    if config_file and not os.path.isfile(config_file):
        raise FileNotFoundError(f"--config-file: there is no file {os.path.abspath(config_file)}")
    pairs = _split_pairs(opts)
    try:
        if config_file:
            cfg.merge_from_file(config_file, allow_unsafe=False)
        cfg.merge_from_list(pairs)
    except (KeyError, AssertionError, ValueError, yaml.YAMLError) as error:
        raise ValueError(_explain(error, cfg, config_file)) from error
    return cfg


def _split_pairs(opts: list[str]) -> list[str]:
    pairs = []
    for word in opts or []:
        if word.startswith("--"):
            raise ValueError(f"{word} stands after the KEY VALUE pairs; put it before them")
        is_key = len(pairs) % 2 == 0
        pairs += word.split("=", 1) if is_key and "=" in word else [word]
    if len(pairs) % 2:
        raise ValueError(f"the last of the KEY VALUE pairs, {pairs[-1]!r}, has no value")
    return pairs


def _explain(error: Exception, cfg: CfgNode, config_file: str) -> str:
    """The message of yacs or yaml and, where there is one, what was probably meant."""
    message = str(error) if isinstance(error, yaml.YAMLError) else str(error.args[0])
    key = message.replace("'", " ").split()[-1]
    hint = ""
    if "xistent" in message:
        near = difflib.get_close_matches(key, _all_keys(cfg), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
    elif "tuple" in message and "str" in message:
        hint = f"; a list of names is written {key} \"('my_set',)\""
    return f"{config_file or 'command line'}: {message}{hint}"


def _all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, CfgNode):
            keys += _all_keys(value, f"{prefix}{name}.")
    return keys
