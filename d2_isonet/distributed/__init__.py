"""Starts the processes of a training, supervises them and handles signals. May import utils."""
