"""Backbones, heads, the classifier, and how they run. May import layers, data and below."""
