"""Rows of a sparse matrix eight side by side, their inputs gathered one by one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwsim.kernels.cpu import _gather_passes, _tiled_passes
from hwsim.kernels.cpu._layer import aligned
from hwsim.kernels.cpu._threads import ranges, run

MOST = (1 << 16) - 1
"""Rows or columns, so that their number fits 16 bits."""


class _Part(NamedTuple):
    """Weights in groups of rows or what is left of them: where they start, columns, values."""

    pointers: np.ndarray
    index: np.ndarray
    values: np.ndarray


class GatheredRows:
    """From a CSR: pointers, index, and the place of each weight in the flat dense one."""

    def __init__(self, pointers: np.ndarray, index: np.ndarray, source: np.ndarray) -> None:
        self._order = _gather_passes.sorted_places(pointers)
        starts, index, common, *rest = _gather_passes.lay_out(self._order, pointers, index, source)
        self._groups = _Part(starts, index, aligned(common.size))
        self._rest = _Part(rest[0], rest[1], aligned(rest[2].size))
        self._sources = common, rest[2]

    def repack(self, flat: np.ndarray) -> None:
        """Values from the flat dense weight."""
        for part, source in zip((self._groups, self._rest), self._sources, strict=True):
            _tiled_passes.gather(flat, source, part.values)

    def multiply(self, x: np.ndarray, y: np.ndarray, threads: int) -> None:
        """y = x·Wᵀ, row-major."""
        calls = ranges(self._order.size // 8, threads)
        given = (self._order, tuple(self._groups), tuple(self._rest), x, y)
        run(_gather_passes.gather_groups, [(*given, *c) for c in calls])


def csr(mask: np.ndarray, transposed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pointers, index, places in the flat dense weight) of a mask or its transpose."""
    active = np.flatnonzero(mask)
    _, pointers, index, source = _tiled_passes.build(active, mask.shape, MOST, 1, transposed)
    return pointers, index, source
