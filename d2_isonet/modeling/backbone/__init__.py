"""Stems, blocks, stages for detectron2's ResNet, and builders. May import layers, config."""
