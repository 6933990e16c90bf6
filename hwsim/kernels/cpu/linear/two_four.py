"""Two of every four inputs of each neuron: inputs looked up within registers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from hwsim.kernels.cpu import tiled_passes
from hwsim.kernels.cpu import two_four_passes as passes
from hwsim.kernels.cpu.layer import Layer, aligned
from hwsim.kernels.cpu.threads import ranges, run
from hwsim.mask import Mask
from hwsim.patterns.n_m import NM

_PATTERN = NM(2, 4)
_BLOCK = 32


class TwoFourLayer(Layer):
    """Forward for batches of one or a few: 32 neurons side by side, 4.25 bytes a weight.

    A weight's place in its quad takes two bits. Neurons without weights are left out.
    """

    name = "two_four"
    phases = ("forward",)
    value_type: ClassVar[Any] = np.float32
    gather: ClassVar[Any] = staticmethod(tiled_passes.gather)

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        if mask.shape[1] % _BLOCK:
            return f"n_in is {mask.shape[1]}; allowed is a multiple of {_BLOCK}"
        if mask.size >= 1 << 32:
            return f"size is {mask.size}; allowed is below 2³²"
        used = int(np.count_nonzero(mask.row_nnz))
        if 2 * mask.nnz != used * mask.shape[1] or not mask.satisfies(_PATTERN):
            return "rows have other than 2 weights in every 4 inputs; allowed are 2, or no weights"
        return ""

    def _build(self) -> None:
        self._rows = np.flatnonzero(self.mask.row_nnz)
        self._groups = -(-self._rows.size // passes.ROWS)
        self._blocks = self.n_in // _BLOCK
        lanes = self._groups * self._blocks * passes.ROWS
        self._codes = aligned(lanes, np.uint32)
        self._codes[:] = 0
        source = np.full(16 * lanes, np.iinfo(np.uint32).max, np.uint32)
        paired = np.dtype(self.value_type).itemsize == 2
        passes.lay_out(self.mask.array, self._rows, paired, self._codes, source)
        # Lanes beyond the last row have no source; what they compute is not used.
        self._used = np.flatnonzero(source != np.iinfo(np.uint32).max)
        self._source = source[self._used]
        self._values = aligned(source.size, self.value_type)
        self._values[:] = 0

    def _repack(self, weights: np.ndarray) -> None:
        packed = np.empty(self._source.size, self.value_type)
        self.gather(weights.reshape(-1), self._source, packed)
        self._values[self._used] = packed

    def _forward(self, x: np.ndarray) -> np.ndarray:
        y = np.zeros((len(x), self.n_out), np.float32)
        found = np.empty(self._groups * passes.ROWS, np.float32)
        parts = ranges(self._groups, self.threads) if self._groups else []
        for sample, row in zip(x, y, strict=True):
            run(passes.multiply_two_four, [
                (self._values, self._codes, self._blocks, sample, found, *part) for part in parts
            ])  # fmt: skip
            row[self._rows] = found[: self._rows.size]
        return y


KERNEL = TwoFourLayer
