"""Modules of tools/export_model.py."""
