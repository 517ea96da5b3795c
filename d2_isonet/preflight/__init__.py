"""Checks of config, network, weights and output folder before a run.

May import evaluation and below.
"""
