"""Files, messages and the differences between detectron2's versions.

Imports nothing of this package.
"""
