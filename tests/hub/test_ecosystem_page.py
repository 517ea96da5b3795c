"""Every Python block of docs/ecosystem.md runs, also those that need a file."""

import numpy as np
import pytest
import torch
from config_files import CONFIGS
from detectron2.modeling import build_backbone
from documents.markdown import Page
from PIL import Image

import d2_isonet
from d2_isonet.checkpoint.checkpointer import describe, save_backbone

pytest.importorskip("timm", reason="pip install 'd2_isonet[timm]'")


def test_the_page_is_one_program_that_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = d2_isonet.get_config("imagenet/risonet18")
    weights = tmp_path / "output" / "imagenet" / "risonet18" / "backbone.pth"
    save_backbone(weights, build_backbone(cfg).state_dict(), describe(cfg))
    pixels = np.random.RandomState(0).randint(0, 256, (300, 260, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    blocks = [b for b in Page(CONFIGS.parent / "docs" / "ecosystem.md").blocks]
    names: dict = {}
    for block in blocks:
        if block.language == "python":
            exec(compile(block.text, f"line {block.line}", "exec"), names)
    assert torch.isfinite(names["logits"]).all() and names["logits"].shape == (1, 1000)
    assert names["transform"] is not None and "risonet50_c4" in names["names"]
    assert names["cfg"].MODEL.ROI_HEADS.NUM_CLASSES == 3
