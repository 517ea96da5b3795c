"""Stems, blocks and stages for detectron2's ResNet, and the builders that read cfg.

May import layers and config.
"""
