"""Row by row with gathered inputs: any mask, batches of one or a few."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu import _tiled_passes
from hwsim.kernels.cpu._gather_passes import gather_rows
from hwsim.kernels.cpu._layer import Layer, aligned
from hwsim.kernels.cpu._threads import ranges, run
from hwsim.mask import Mask

_MOST = (1 << 16) - 1  # so that the number of weights fits 32 bits too


class GatherLayer(Layer):
    """CSR with uint16 indices, six bytes a weight; the input vector stays in the L1 cache."""

    name = "gather"
    phases = ("forward", "grad_input")

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        if max(mask.shape) > _MOST:
            return f"shape is {mask.shape}; allowed are at most {_MOST} rows and columns"
        return ""

    def _build(self) -> None:
        # One tile of all columns is a CSR matrix.
        self._sides = []
        active = np.flatnonzero(self.mask.array)
        for transposed in (False, True):
            _, *csr = _tiled_passes.build(active, self.mask.shape, _MOST, 1, transposed)
            pointers, index, source = csr
            self._sides.append((pointers, index, aligned(source.size), source))

    def _repack(self, weights: np.ndarray) -> None:
        for _, _, values, source in self._sides:
            _tiled_passes.gather(weights.reshape(-1), source, values)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return self._product(0, x, self.n_out)

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        return self._product(1, dy, self.n_in)

    def _product(self, side: int, x: np.ndarray, rows: int) -> np.ndarray:
        pointers, index, values, _ = self._sides[side]
        y = np.empty((len(x), rows), np.float32)
        parts = ranges(rows, self.threads)
        run(gather_rows, [(pointers, index, values, x, y, *part) for part in parts])
        return y


KERNEL = GatherLayer
