"""Algorithms and patterns from what the user named."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hwsim.errors import InputError, unknown
from sparse_train.algorithms import ALGORITHMS, Algorithm
from sparse_train.distributions import Distribution, distribution
from sparse_train.patterns import Projection, projection


def make_algorithm(given: str | Algorithm, options: Mapping[str, Any]) -> Algorithm:
    """An algorithm by name with its options, or the instance that was given.

    Raises:
        InputError: an unknown name or option (the valid ones are listed).
    """
    if isinstance(given, Algorithm):
        if options:
            raise InputError(
                f"{next(iter(options))}: options go with an algorithm's name; "
                "this one is an instance, which has its own"
            )
        return given
    if not isinstance(given, str):
        raise InputError(
            f"algorithm: type is {type(given).__name__}; allowed is a name or an Algorithm"
        )
    kind = ALGORITHMS.get(given)
    if isinstance(kind, Algorithm):
        return make_algorithm(kind, options)
    if not (isinstance(kind, type) and issubclass(kind, Algorithm)):
        raise InputError(
            f"algorithm {given!r}: is a {type(kind).__name__}; allowed is a subclass or an "
            "instance of sparse_train.algorithms.Algorithm"
        )
    valid = tuple(f.name for f in dataclasses.fields(kind))
    for name in options:
        if name not in valid:
            raise InputError(unknown(f"option of {given}", name, valid or ("none",)))
    return kind(**options)


def make_distribution(
    given: str | Distribution | Mapping[str, float] | None, pattern: Projection
) -> Distribution:
    """The distribution that was given; None is ERK, or uniform where the pattern allows no other.

    Raises:
        InputError: an unknown name.
    """
    if given is None:
        given = "uniform" if pattern.only_density is not None else "erk"
    return distribution(given)


def make_pattern(given: str | Projection | None, algorithm: Algorithm) -> Projection:
    """A pattern by name, or the instance that was given; None takes the algorithm's own.

    Raises:
        InputError: an unknown name, or a pattern that the algorithm does not make.
    """
    if given is None:
        given = algorithm.patterns[0] if algorithm.patterns else algorithm.pattern
    if not isinstance(given, (str, Projection)):
        raise InputError(
            f"pattern: type is {type(given).__name__}; allowed is a name or a Projection"
        )
    pattern = projection(given)
    if algorithm.patterns and pattern.name not in algorithm.patterns:
        raise InputError(
            f"pattern: {pattern.name} does not go with {type(algorithm).__name__}, "
            f"{algorithm.patterns_reason} (allowed: {', '.join(algorithm.patterns)})"
        )
    return pattern
