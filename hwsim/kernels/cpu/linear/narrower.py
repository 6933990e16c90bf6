"""Whole neurons gone: the dense layer that is left."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu.layer import Layer
from hwsim.mask import Mask


class NarrowerLayer(Layer):
    """Dense BLAS on the rows and columns that have any weight; those must be full.

    The yardstick of structured pruning: an unstructured kernel is worth its trouble only below
    the density at which it beats a narrower dense layer.
    """

    name = "narrower"

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        rows, columns = np.count_nonzero(mask.row_nnz), np.count_nonzero(mask.col_nnz)
        if mask.nnz != rows * columns:
            return (
                f"{mask.nnz} weights in {rows} used rows and {columns} used columns; allowed is "
                "a full block"
            )
        return ""

    def _build(self) -> None:
        self._rows = np.flatnonzero(self.mask.row_nnz)
        self._columns = np.flatnonzero(self.mask.col_nnz)

    def _repack(self, weights: np.ndarray) -> None:
        self._weights = np.ascontiguousarray(weights[np.ix_(self._rows, self._columns)])

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return _spread(x[:, self._columns] @ self._weights.T, self._rows, self.n_out)

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        return _spread(dy[:, self._rows] @ self._weights, self._columns, self.n_in)

    def _grad_weight(self, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        dw = np.zeros(self.mask.shape, np.float32)
        dw[np.ix_(self._rows, self._columns)] = dy[:, self._rows].T @ x[:, self._columns]
        return dw


def _spread(narrow: np.ndarray, places: np.ndarray, width: int) -> np.ndarray:
    if places.size == width:
        return narrow
    wide = np.zeros((len(narrow), width), np.float32)
    wide[:, places] = narrow
    return wide


KERNEL = NarrowerLayer
