"""Projections: scores and a budget → a mask of the pattern. One file, one pattern.

`hwsim.patterns` has the definitions, by the same names and with the same parameters.
"""

from hwsim.pattern_names import build
from sparse_train.patterns._base import Projection
from sparse_train.registries import PATTERNS


def projection(text: str | Projection) -> Projection:
    """A projection by name: "unstructured", "2:4", "fan_in", "block:16,16", "group:256", …

    Raises:
        InputError: an unknown name, or parameters that the pattern does not take.
    """
    return text if isinstance(text, Projection) else build(PATTERNS, text)


__all__ = ["PATTERNS", "Projection", "projection"]
