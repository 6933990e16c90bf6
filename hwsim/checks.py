"""One line for an argument that is out of range: its name, its value, what is allowed."""

from __future__ import annotations

from hwsim.errors import InputError


def check_integer(name: str, value: object, least: int) -> None:
    """An InputError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}: value is {value!r}; allowed is an integer of at least {least}")


def check_density(label: str, value: object) -> float:
    """The value as a float; an InputError unless it is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"{label}: value is {value!r}; allowed is a number from 0 to 1")
    return float(value)
