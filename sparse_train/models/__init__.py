"""Models: one file is one family, bound to FAMILY; `bert-base` is preset `base` of `bert`."""

from __future__ import annotations

from typing import Any

from torch import nn

from hwsim.checks import check_number
from hwsim.errors import InputError, unknown
from sparse_train.models._family import Family, rounded_width
from sparse_train.registries import FAMILIES


def names() -> tuple[str, ...]:
    """Every model that `build` knows."""
    return tuple(
        f"{family.replace('_', '-')}-{preset}"
        for family in FAMILIES.names()
        for preset in FAMILIES.get(family).presets
    )


def build(
    name: str, batch_size: int = 8, sequence_length: int = 128, share: float = 1.0
) -> tuple[nn.Module, Any]:
    """A model and a batch on the meta device: enough to see what a step does, without memory.

    Args:
        share: of the preset's width.

    Raises:
        InputError: an unknown name (the valid ones are listed), a size below 1.
    """
    for label, value in (("batch_size", batch_size), ("sequence_length", sequence_length)):
        check_number(label, value, least=1)
    family, preset = _found(name)
    return family.build(preset, batch_size, sequence_length, share)


def widths(name: str) -> int:
    """How many widths a model can be narrowed to, its own among them."""
    family, preset = _found(name)
    return family.widths(preset)


def _found(name: str) -> tuple[Family, str]:
    family, _, preset = name.rpartition("-")
    family = family.replace("-", "_")
    if family not in FAMILIES.names() or preset not in FAMILIES.get(family).presets:
        raise InputError(unknown("model", name, names()))
    return FAMILIES.get(family), preset


__all__ = ["FAMILIES", "Family", "build", "names", "rounded_width", "widths"]
