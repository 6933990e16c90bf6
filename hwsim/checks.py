"""One line for an argument that is out of range: its name, its value, what is allowed."""

from __future__ import annotations

import math
from numbers import Real

from hwsim.errors import InputError


def check_integer(name: str, value: object, least: int) -> None:
    """An InputError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}: value is {value!r}; allowed is an integer of at least {least}")


def check_number(
    name: str, value: object, *, above: float | None = None, least: float | None = None,
    below: float | None = None, most: float | None = None, finite: bool = True,
) -> None:  # fmt: skip
    """An InputError unless `value` is a number within the given bounds.

    Args:
        finite: whether infinity is refused too.

    >>> check_number("density", 1.5, above=0, most=1)
    Traceback (most recent call last):
    hwsim.errors.InputError: density: value is 1.5; allowed is above 0, at most 1
    """
    known = isinstance(value, Real) and not isinstance(value, bool)
    number = float(value) if known else math.nan
    if (
        not math.isnan(number)
        and not (finite and math.isinf(number))
        and (above is None or number > above)
        and (least is None or number >= least)
        and (below is None or number < below)
        and (most is None or number <= most)
    ):
        return
    bounds = {"above": above, "at least": least, "below": below, "at most": most}
    parts = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    shown = value if known else repr(value)
    raise InputError(f"{name}: value is {shown}; allowed is {', '.join(parts) or 'a number'}")


def check_density(label: str, value: object) -> float:
    """The value as a float; an InputError unless it is a number from 0 to 1."""
    check_number(label, value, least=0, most=1)
    return float(value)  # pyrefly: ignore
