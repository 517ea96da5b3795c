"""Trainers, the training loop, and what a run records. May import preflight and below."""
