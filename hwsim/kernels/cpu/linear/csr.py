"""Compressed sparse rows by scipy: the sparse baseline."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu.layer import Layer


class CsrLayer(Layer):
    """scipy's CSR times the transposed activations; one thread."""

    name = "csr"
    phases = ("forward", "grad_input")

    def _build(self) -> None:
        from scipy.sparse import csr_array

        # Positions as values: repacking is then one look-up.
        positions = np.arange(1, self.mask.size + 1).reshape(self.mask.shape) * self.mask.array
        self._matrix = csr_array(positions)
        self._transposed = csr_array(positions.T)
        self._source = self._matrix.data - 1
        self._transposed_source = self._transposed.data - 1

    def _repack(self, weights: np.ndarray) -> None:
        flat = weights.reshape(-1)
        self._matrix.data = flat[self._source]
        self._transposed.data = flat[self._transposed_source]

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return _product(self._matrix, x)

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        return _product(self._transposed, dy)


def _product(matrix, x: np.ndarray) -> np.ndarray:
    if len(x) == 1:
        return (matrix @ x[0])[None, :]
    return np.ascontiguousarray((matrix @ np.ascontiguousarray(x.T)).T)


KERNEL = CsrLayer
