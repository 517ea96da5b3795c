"""Config keys, their legal values, and how yaml files and KEY VALUE pairs are loaded.

May import utils.
"""
