"""COCO and ImageNet measures, and robustness against attacks.

May import checkpoint, isometry, solver and below.
"""
