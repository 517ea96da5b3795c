"""Starts the processes of a training and handles signals. May import utils."""
