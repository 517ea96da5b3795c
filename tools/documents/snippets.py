"""Executes the Python of a page, merges its yaml into the config and parses its json."""

import ast
import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import yaml

from .markdown import Block, Page, Problem
from .names import default_config


def snippets_of(page: Page) -> list[Block]:
    """The blocks that are executed."""
    return [b for b in page.blocks if b.language in _EXECUTED and not b.not_run]


def failing_snippets(page: Page) -> Iterator[Problem]:
    """The blocks that fail. All Python blocks of a page form one program."""
    blocks = snippets_of(page)
    if not blocks:
        return
    names: dict[str, Any] = {"__name__": page.path.stem}
    with mock.patch.dict("d2_isonet.layers.activation.ACTIVATIONS"):  # a page may add some
        for block in blocks:
            try:
                _EXECUTED[block.language](block, names)
            except Exception as error:  # any error of the snippet is reported
                what = f"this {block.language} fails: {type(error).__name__}: {error}"
                yield Problem(page.path, block.line, what)


def _run_python(block: Block, names: dict[str, Any]) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in names and node.id in _GIVEN:
            names[node.id] = _GIVEN[node.id]()
    exec(compile(tree, f"line {block.line}", "exec"), names)


def _merge_yaml(block: Block, names: dict[str, Any]) -> None:
    """If the yaml has sections of detectron2's config, its keys must exist there."""
    content = yaml.safe_load(block.text)
    if isinstance(content, dict) and content.keys() & {"MODEL", "SOLVER", "INPUT", "DATASETS"}:
        from detectron2.config import CfgNode

        content.pop("_BASE_", None)
        _cfg().merge_from_other_cfg(CfgNode(content))


_EXECUTED: dict[str, Callable[[Block, dict[str, Any]], Any]] = {
    "python": _run_python,
    "yaml": _merge_yaml,
    "json": lambda block, names: json.loads(block.text),
}


def _cfg():
    cfg = default_config().clone()
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def _model():
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))


def _trainer():
    import torch
    from detectron2.engine import SimpleTrainer

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    return SimpleTrainer(model, [], torch.optim.SGD(model.parameters(), 0.1))


# Names that a snippet may use without defining them: the reader has them.
_GIVEN: dict[str, Callable[[], Any]] = {"cfg": _cfg, "model": _model, "trainer": _trainer}
