"""Checks of the markdown files: links, names, commands and code, one kind a module."""
