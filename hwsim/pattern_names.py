"""Patterns by name and parameters; shared by definitions and projections."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from hwsim.errors import InputError
from hwsim.references import is_reference
from hwsim.registry import Names


def build(registry: Names, text: str) -> Any:
    """A member from "name", "name:1,2", "N:M" or "transposable N:M"."""
    if not isinstance(text, str):
        raise InputError(f"pattern: value is {text!r}; allowed is a name, such as 'unstructured'")
    name, numbers = _split(registry, text)
    ratio = re.fullmatch(r"(transposable[ _-])?(\d+):(\d+)", text.strip())
    if ratio:
        name = "transposable_n_m" if ratio[1] else "n_m"
        numbers = f"{ratio[2]},{ratio[3]}"
    kind = registry.get(name)
    if not isinstance(kind, type) and not numbers:
        return kind
    if not numbers:
        return kind()
    fields = [f.name for f in dataclasses.fields(kind)]
    values = re.split(r"[,x]", numbers)
    if len(values) > len(fields) or not all(re.fullmatch(r"\d+", v) for v in values):
        takes = ", ".join(fields) or "no parameters"
        raise InputError(f"pattern {text!r}: parameters are {numbers!r}; {name} takes {takes}")
    return kind(*map(int, values))


def _split(registry: Names, text: str) -> tuple[str, str]:
    """Name and numbers; a reference keeps its own colon."""
    name, _, numbers = text.partition(":")
    if is_reference(text) and name not in registry.names():
        own, _, numbers = numbers.partition(":")
        return f"{name}:{own}", numbers
    return name, numbers


def at_least(pattern: str, name: str, value: object, least: int) -> None:
    """An InputError unless a pattern's parameter is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(
            f"pattern {pattern}: {name} is {value!r}; allowed is an integer of at least {least}"
        )
