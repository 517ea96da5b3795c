"""Images in tar shards: index, order, reading, loading and writing.

May import the rest of data.
"""
