"""Tiled sparse weights times packed activations: any mask, batches from about eight."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu.layer import Layer
from hwsim.kernels.cpu.tiled import PackedActivations, TiledMatrix


class TiledLayer(Layer):
    """Forward and grad_input by one loop: grad_input walks the transposed matrix.

    Both packings of the values are renewed by `repack`; activations are packed on the way in and
    unpacked on the way out. `hwsim.kernels.cpu.tiled` has the same steps on packed activations.
    """

    name = "tiled"
    phases = ("forward", "grad_input")

    def _build(self) -> None:
        self.matrix = TiledMatrix(self.mask.array, False, self.threads)
        self.transposed = TiledMatrix(self.mask.array, True, self.threads)
        self._order = self.transposed.order_in(self.matrix)

    def _repack(self, weights: np.ndarray) -> None:
        self.matrix.repack(weights)
        self.transposed.take(self.matrix, self._order)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return self.matrix.multiply(PackedActivations.of(x, self.threads)).rows(self.threads)

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        return self.transposed.multiply(PackedActivations.of(dy, self.threads)).rows(self.threads)


KERNEL = TiledLayer
