"""What a file in `sparse_train/models/` binds to FAMILY."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    Attributes:
        presets: their names.
        build: (preset, batch size, sequence length, share of the width) → (model, batch) on the
            meta device: shapes without memory. Models without sequences ignore the length.
        widths: preset → how many widths the model can be narrowed to, its own among them.
    """

    presets: tuple[str, ...]
    build: Callable[[str, int, int, float], tuple[nn.Module, Any]]
    widths: Callable[[str], int]


def rounded_width(share: float, width: int, unit: int) -> int:
    """A share of a width in multiples of `unit`, at least one of them and at most the whole.

    >>> rounded_width(0.5, 100, 8), rounded_width(0.01, 100, 8)
    (48, 8)
    """
    return min(width, max(unit, unit * round(share * width / unit)))
