"""What a pattern says about a mask: whether it holds, and how values are packed by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.masks.statistics import Cells


@dataclass(frozen=True, eq=False)
class Packed:
    """The values of a masked weight, and where they go.

    Attributes:
        values: one array with every active value (and padding, where a format has it).
        indices: name → integer array; whatever the format needs to find the places again.
        shape: (n_out, n_in) of the weight.
    """

    values: np.ndarray
    indices: Mapping[str, np.ndarray]
    shape: tuple[int, int]

    @property
    def value_bytes(self) -> int:
        """Bytes of the values."""
        return self.values.nbytes

    @property
    def index_bytes(self) -> int:
        """Bytes of all that says where values are."""
        return sum(array.nbytes for array in self.indices.values())


@dataclass(frozen=True)
class Pattern:
    """A family of masks. Its fields are its parameters; equal fields are the same pattern."""

    name: ClassVar[str] = ""

    def holds(self, mask: Mask) -> bool:
        """Whether `mask` is of this pattern."""
        raise TypeError(f"{type(self).__name__} must define holds(mask)")

    def pack(self, mask: Mask, values: np.ndarray) -> Packed:
        """Values (n_out, n_in) in the pattern's own form; what is inactive is not looked at.

        Raises:
            InputError: the mask is not of this pattern, or values of another shape.
        """
        if values.shape != mask.shape:
            raise InputError(f"values: shape is {values.shape}; allowed is {mask.shape}")
        if not mask.satisfies(self):
            raise InputError(f"mask: {mask!r} is not of pattern {self}")
        return self._pack(mask, np.where(mask.array, values, values.dtype.type(0)))

    def unpack(self, packed: Packed) -> np.ndarray:
        """The dense (n_out, n_in) values again, zero where inactive."""
        raise TypeError(f"{type(self).__name__} must define unpack(packed)")

    def cells(self, shape: tuple[int, int], density: float) -> tuple[Cells, Cells] | None:
        """What rows and what columns of random masks of this pattern are made of; None where
        that is not known."""
        return None

    def line_counts(
        self, axis: int, shape: tuple[int, int], density: float, rng: np.random.Generator
    ) -> np.ndarray | None:
        """Active weights of the rows (axis 0) or columns (1) of one random mask, as they depend on
        each other; None where they do not, but for what `cells` says and their sum."""
        return None

    def drawn(
        self, shape: tuple[int, int], density: float, rng: np.random.Generator
    ) -> np.ndarray | None:
        """One random mask, bool, where its rows depend on each other by more than equal cells;
        None where they do not."""
        return None

    def implies(self, other: Pattern) -> bool:
        """Whether every random mask of this pattern is also of another one."""
        return other.name == "unstructured"

    def _pack(self, mask: Mask, values: np.ndarray) -> Packed:
        raise TypeError(f"{type(self).__name__} must define _pack(mask, values)")


def index_dtype(largest: int) -> Any:
    """The smallest unsigned integer type that holds `largest`."""
    return np.min_scalar_type(max(largest, 0))
