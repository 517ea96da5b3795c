"""Writes, reads and converts files of weights, and matches them with a network.

May import modeling and below.
"""
