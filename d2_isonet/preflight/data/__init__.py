"""Checks of data sets before a run: annotations, objects and images.

May import data and below.
"""
