"""Definitions of the patterns that masks can have. One file, one pattern.

`sparse_train.patterns` has the projections, by the same names and with the same parameters.
"""

from hwsim.pattern_names import build
from hwsim.patterns._base import Packed, Pattern
from hwsim.registry import Registry

PATTERNS = Registry("pattern", "hwsim.patterns", "PATTERN", group="nettime.pattern_definitions")


def pattern(text: str | Pattern) -> Pattern:
    """A pattern from its name: "unstructured", "2:4", "n_m:2,4", "block:16,16", "group:256", …

    Numbers after the colon are the pattern's parameters in their order. N:M may be written alone,
    or as "transposable N:M".

    Raises:
        InputError: an unknown name, or parameters that the pattern does not take.

    >>> pattern("2:4")
    NM(n=2, m=4, axis=1)
    """
    return text if isinstance(text, Pattern) else build(PATTERNS, text)


__all__ = ["PATTERNS", "Packed", "Pattern", "pattern"]
