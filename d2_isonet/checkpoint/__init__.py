"""Files of weights: how they are written, read, matched with a network and converted.

May import modeling and below.
"""
