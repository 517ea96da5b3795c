"""The paper's idea: the orthogonal penalty, its hook, and measures of isometry.

May import modeling and below.
"""
