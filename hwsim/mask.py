"""A mask: which weights of a layer are there."""

from __future__ import annotations

import functools
import hashlib
import weakref
from typing import Any

import numpy as np

from hwsim.errors import InputError


@functools.cache
def _block_counts() -> Any:
    """`block_counts`; Numba is imported when the first mask is counted."""
    from hwsim.masks.counts import block_counts

    return block_counts


class Mask:
    """An immutable boolean matrix of shape (n_out, n_in); True where a weight is active.

    Args:
        array: boolean, two-dimensional, at least 1 × 1. Weights of convolutions are given as
            (out_channels, in_channels · kernel height · kernel width).
        copy: False takes the array over instead of copying it. The caller then promises not to
            write to it again; `Mask` marks it read-only.

    Counts and digest are computed once, when first asked for. Two masks are equal when shape and
    content are.

    Raises:
        InputError: wrong dtype, wrong number of dimensions, or an empty dimension.

    >>> Mask(np.eye(3, dtype=bool)).nnz
    3
    """

    __slots__ = (
        "_array", "_blocks", "_col_nnz", "_digest", "_nnz", "_patterns", "_prices", "_row_nnz",
    )  # fmt: skip

    def __init__(self, array: Any, *, copy: bool = True) -> None:
        given = np.asarray(array)
        if given.dtype != np.bool_:
            raise InputError(f"mask: dtype is {given.dtype}; allowed is bool")
        if given.ndim != 2 or 0 in given.shape:
            raise InputError(
                f"mask: shape is {given.shape}; allowed is (n_out, n_in), both at least 1"
            )
        held = np.array(given, order="C", copy=True if copy else None)
        held.flags.writeable = False
        self._array = held.view()  # of a read-only array: cannot be made writeable again
        self._start()

    def _start(self) -> None:
        """Nothing is known of the mask yet."""
        self._blocks: tuple[np.ndarray, np.ndarray] | None = None
        self._row_nnz: np.ndarray | None = None
        self._col_nnz: np.ndarray | None = None
        self._nnz: int | None = None
        self._digest: str | None = None
        self._patterns: dict[Any, bool] = {}
        self._prices: dict[int, tuple[weakref.ref[Any], dict[Any, Any]]] = {}

    @property
    def array(self) -> np.ndarray:
        """The matrix itself, read-only."""
        return self._array

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return self._array.shape  # type: ignore[return-value]

    @property
    def size(self) -> int:
        """n_out · n_in."""
        return self._array.size

    @property
    def nnz(self) -> int:
        """How many weights are active: the integer truth; density is derived from it."""
        if self._nnz is None:
            self._count()
        return self._nnz  # type: ignore[return-value]

    @property
    def density(self) -> float:
        """Active share of the weights."""
        return self.nnz / self.size

    @property
    def row_nnz(self) -> np.ndarray:
        """Active weights per output, int64, shape (n_out,): the fan-in of each neuron."""
        if self._row_nnz is None:
            self._count()
        return self._row_nnz  # type: ignore[return-value]

    @property
    def col_nnz(self) -> np.ndarray:
        """Active weights per input, int64, shape (n_in,)."""
        if self._col_nnz is None:
            self._count()
        return self._col_nnz  # type: ignore[return-value]

    @property
    def blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts by blocks of 128: how active weights lie, finer than by rows and columns.

        Active weights per input within each block of outputs, (⌈n_out/128⌉, n_in), and per output
        within each block of inputs, (n_out, ⌈n_in/128⌉); both uint8.
        """
        if self._blocks is None:
            self._count()
        return self._blocks  # type: ignore[return-value]

    @property
    def bits(self) -> np.ndarray:
        """The matrix in rows' order, eight entries a byte, the first one the highest bit."""
        return np.packbits(self._array)

    @property
    def digest(self) -> str:
        """BLAKE2b of shape and content, 32 hexadecimal digits; the same on every machine."""
        if self._digest is None:
            hashed = hashlib.blake2b(self.bits.data, digest_size=16)
            hashed.update(f"{self.shape[0]}x{self.shape[1]}".encode())
            self._digest = hashed.hexdigest()
        return self._digest

    @property
    def variants(self) -> tuple[Mask, ...]:
        """Masks over which prices are averaged instead: none, since this one is known."""
        return ()

    def ways(self, many: int) -> tuple[Mask, ...]:
        """So many such masks, where they differ."""
        return ()

    def share(self, axis: int, number: int, of: int) -> Mask:
        """Its rows (axis 0) or columns (1) that are the `number`-th of `of` neighbouring shares.

        >>> Mask(np.eye(4, dtype=bool)).share(1, 0, 2).row_nnz.tolist()
        [1, 1, 0, 0]
        """
        first, last = _share(self.shape[axis], number, of)
        array = self.array
        return Mask(array[first:last] if axis == 0 else array[:, first:last])

    def slowest(self, axis: int, group: int) -> tuple[float, float]:
        """Of rows (axis 0) or columns (1): the fullest of each `group` neighbours, added up; and
        the fullest of all."""
        counts = (self.row_nnz, self.col_nnz)[axis]
        whole = len(counts) // group * group
        total = int(counts[:whole].reshape(-1, group).max(axis=1).sum()) if whole else 0
        if whole < len(counts):
            total += int(counts[whole:].max())
        return total, int(counts.max())

    def satisfies(self, pattern: Any) -> bool:
        """Whether the mask is of `pattern` (a member of `hwsim.patterns`); asked once, kept."""
        if pattern not in self._patterns:
            self._patterns[pattern] = bool(pattern.holds(self))
        return self._patterns[pattern]

    def prices(self, device: Any) -> dict[Any, Any]:
        """What `device` has already said about this mask; keeps no device alive."""
        held = self._prices.get(id(device))
        if held is None or held[0]() is not device:  # an id may have been another device's
            self._prices = {i: h for i, h in self._prices.items() if h[0]() is not None}
            held = self._prices[id(device)] = weakref.ref(device), {}
        return held[1]

    def _count(self) -> None:
        """Everything that one pass over the matrix can count."""
        *counts, self._nnz = _block_counts()(self._array.view(np.uint8))
        for array in counts:
            array.setflags(write=False)
        by_rows, by_columns, self._row_nnz, self._col_nnz = counts
        self._blocks = by_rows, by_columns

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mask):
            return NotImplemented
        return self.shape == other.shape and self.nnz == other.nnz and self.digest == other.digest

    def __hash__(self) -> int:
        # Equal masks have equal shape and nnz; the digest, which costs a pass, is left to __eq__.
        return hash((self.shape, self.nnz))

    def __reduce__(self) -> tuple[type[Mask], tuple[np.ndarray]]:
        # Prices hold devices by weak references, which cannot be pickled; counts are made again.
        return Mask, (self._array,)

    def __repr__(self) -> str:
        return f"Mask({self.shape[0]}×{self.shape[1]}, nnz={self.nnz}, density={self.density:.4f})"


def _share(size: int, number: int, of: int) -> tuple[int, int]:
    if not 0 <= number < of <= size:
        raise InputError(f"share: {number} of {of}; allowed is 0 ≤ number < of ≤ {size}")
    return number * size // of, (number + 1) * size // of
