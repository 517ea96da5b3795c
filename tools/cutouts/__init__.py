"""Composed photographs with exact boxes and masks: cut-outs pasted on backgrounds."""
