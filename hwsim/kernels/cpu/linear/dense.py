"""Dense BLAS on the masked weight: what every sparse kernel is held against."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu.layer import Layer, masked


class DenseLayer(Layer):
    """Matrix products by numpy's BLAS; it uses as many threads as that library is set to.

    The mask only decides what is multiplied by zero: an input that no weight uses still counts,
    so a NaN in it spreads, as it does in a masked dense layer of any framework.
    """

    name = "dense"

    def _repack(self, weights: np.ndarray) -> None:
        self.weights = masked(self.mask, weights)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights.T

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        return dy @ self.weights

    def _grad_weight(self, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        return masked(self.mask, dy.T @ x)


KERNEL = DenseLayer
