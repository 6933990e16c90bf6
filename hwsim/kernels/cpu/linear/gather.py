"""Eight rows side by side with gathered inputs: any mask, batches of one or a few."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu._layer import Layer
from hwsim.kernels.cpu._rows import MOST, GatheredRows, csr
from hwsim.mask import Mask


class GatherLayer(Layer):
    """Eight rows with as many weights side by side, uint16 indices: six bytes a weight.

    Rows are sorted by their number of weights, so that hardly any weight is left over; the input
    vector stays in the nearest cache.
    """

    name = "gather"
    phases = ("forward", "grad_input")

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        if max(mask.shape) > MOST:
            return f"shape is {mask.shape}; allowed are at most {MOST} rows and columns"
        return ""

    def _build(self) -> None:
        self._sides = [GatheredRows(*csr(self.mask.array, turned)) for turned in (False, True)]

    def _repack(self, weights: np.ndarray) -> None:
        for side in self._sides:
            side.repack(weights.reshape(-1))

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return self._multiply(0, x, self.n_out)

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        return self._multiply(1, dy, self.n_in)

    def _multiply(self, side: int, x: np.ndarray, rows: int) -> np.ndarray:
        y = np.empty((len(x), rows), np.float32)
        self._sides[side].multiply(x, y, self.threads)
        return y


KERNEL = GatherLayer
