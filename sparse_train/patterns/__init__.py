"""Projections: scores and a budget → a mask of the pattern. One file, one pattern."""

from hwsim.registry import Registry

PATTERNS = Registry("pattern", "sparse_train.patterns", "PATTERN")
