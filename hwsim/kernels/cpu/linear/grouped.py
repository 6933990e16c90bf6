"""Groups of neurons that share their inputs: gather once, then dense BLAS."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu.layer import Layer
from hwsim.mask import Mask

_LEAST_GROUP = 8


class GroupedLayer(Layer):
    """Equal rows of the mask that follow each other form a group; each is a small dense product.

    Worth it from about eight rows a group: then the gathered inputs are used often enough.
    """

    name = "grouped"

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        groups = len(_starts(mask))
        mean = mask.shape[0] / groups
        if mean < _LEAST_GROUP:
            return (
                f"{groups} groups of equal rows, {mean:.1f} rows each; allowed are groups of "
                f"{_LEAST_GROUP} rows on average"
            )
        return ""

    def _build(self) -> None:
        starts = _starts(self.mask)
        stops = [*starts[1:], self.n_out]
        self._groups = [
            (slice(a, b), np.flatnonzero(self.mask.array[a]))
            for a, b in zip(starts, stops, strict=True)
        ]
        self._groups = [(rows, columns) for rows, columns in self._groups if columns.size]

    def _repack(self, weights: np.ndarray) -> None:
        self._weights = [
            np.ascontiguousarray(weights[rows][:, columns]) for rows, columns in self._groups
        ]

    def _forward(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros((len(x), self.n_out), np.float32)
        for (rows, columns), weights in zip(self._groups, self._weights, strict=True):
            y[:, rows] = x[:, columns] @ weights.T
        return y

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        dx = np.zeros((len(dy), self.n_in), np.float32)
        for (rows, columns), weights in zip(self._groups, self._weights, strict=True):
            dx[:, columns] += dy[:, rows] @ weights
        return dx

    def _grad_weight(self, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        dw = np.zeros(self.mask.shape, np.float32)
        for rows, columns in self._groups:
            dw[rows, columns] = dy[:, rows].T @ x[:, columns]
        return dw


def _starts(mask: Mask) -> list[int]:
    """The first row of each run of equal rows."""
    array = mask.array
    changes = (array[1:] != array[:-1]).any(axis=1)
    return [0, *(np.flatnonzero(changes) + 1).tolist()]


KERNEL = GroupedLayer
