"""Hooks of the training loop. May import preflight and below."""
