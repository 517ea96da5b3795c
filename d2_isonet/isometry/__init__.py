"""The orthogonal penalty, its hook, measures of isometry. May import modeling and below."""
