"""Builds the pure-Python wheel detectron2 0.6 from the registry's sdist pb1-detectron2 0.6."""
