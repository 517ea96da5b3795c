"""Data sets, the images in them, and loaders whose order can resume.

May import config, distributed and utils.
"""
