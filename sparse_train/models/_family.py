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
        build: (preset, batch size, sequence length) → (model, batch) on the meta device: shapes
            without memory. Models without sequences ignore the length.
    """

    presets: tuple[str, ...]
    build: Callable[[str, int, int], tuple[nn.Module, Any]]
