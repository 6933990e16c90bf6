"""A mask of constant fan-in that is never held as a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.errors import InputError
from hwsim.mask import Mask

_ROWS = 4096  # made dense at once; a multiple of eight, so that their bits fill whole bytes


class CondensedMask(Mask):
    """A mask in which each output has as many inputs: (n_out, k) places instead of a matrix.

    For layers so wide that even a boolean matrix would not fit. Counts, bits and digest come from
    the places, some rows at a time, and equal those of the same `Mask`. `array` makes the matrix
    anew each time it is asked for, and keeps it not: only devices that look at single entries do.

    Args:
        inputs: integers (n_out, k), each row different places below n_in, in any order.
        n_in: inputs of the layer.

    Raises:
        InputError: wrong dtype or shape, a place that is not below n_in or is twice in a row.

    >>> CondensedMask(np.array([[0, 2], [1, 2]]), 3).array.astype(int).tolist()
    [[1, 0, 1], [0, 1, 1]]
    """

    __slots__ = ("_inputs", "_n_in")

    def __init__(self, inputs: Any, n_in: int) -> None:
        given = np.asarray(inputs)
        if given.dtype.kind not in "iu":
            raise InputError(f"inputs: dtype is {given.dtype}; allowed are integers")
        if given.ndim != 2 or 0 in given.shape:
            raise InputError(
                f"inputs: shape is {given.shape}; allowed is (n_out, k), both at least 1"
            )
        held = np.sort(given, axis=1)
        if held[:, 0].min() < 0 or held[:, -1].max() >= n_in:
            raise InputError(
                f"inputs: from {held[:, 0].min()} to {held[:, -1].max()}; allowed is 0 to "
                f"{n_in - 1}"
            )
        for start in range(0, len(held), _ROWS):
            some = held[start : start + _ROWS]
            if bool((some[:, 1:] == some[:, :-1]).any()):
                raise InputError("inputs: a place is twice in a row; allowed is once")
        held.flags.writeable = False
        self._inputs = held
        self._n_in = n_in
        self._start()

    @property
    def inputs(self) -> np.ndarray:
        """(n_out, k) places of the active weights, ascending in each row, read-only."""
        return self._inputs

    @property
    def array(self) -> np.ndarray:
        matrix = self._rows(0, self._inputs.shape[0])
        matrix.flags.writeable = False
        return matrix

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return self._inputs.shape[0], self._n_in

    @property
    def size(self) -> int:
        """n_out · n_in."""
        return self._inputs.shape[0] * self._n_in

    @property
    def nnz(self) -> int:
        return self._inputs.size

    @property
    def bits(self) -> np.ndarray:
        packed = np.empty(-(-self.size // 8), np.uint8)
        for start in range(0, self._inputs.shape[0], _ROWS):
            some = np.packbits(self._rows(start, start + _ROWS))
            at = start * self._n_in // 8
            packed[at : at + len(some)] = some
        return packed

    def _rows(self, start: int, stop: int) -> np.ndarray:
        places = self._inputs[start:stop]
        matrix = np.zeros((len(places), self._n_in), dtype=bool)
        np.put_along_axis(matrix, places.astype(np.intp), True, axis=1)
        return matrix

    def _count(self) -> None:
        from hwsim.masks.counts import condensed_counts

        *counts, self._nnz = condensed_counts(self._inputs, self._n_in)
        for array in counts:
            array.setflags(write=False)
        by_rows, by_columns, self._row_nnz, self._col_nnz = counts
        self._blocks = by_rows, by_columns

    def __reduce__(self) -> tuple[type[Mask], tuple[Any, ...]]:
        return CondensedMask, (self._inputs, self._n_in)
