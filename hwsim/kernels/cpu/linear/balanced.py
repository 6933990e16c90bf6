"""As many weights in every 32 inputs of each neuron: inputs looked up within registers."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu import _balanced_passes as passes
from hwsim.kernels.cpu import _tiled_passes
from hwsim.kernels.cpu._layer import Layer, aligned
from hwsim.kernels.cpu._threads import ranges, run
from hwsim.mask import Mask
from hwsim.patterns.balanced import Balanced

_BLOCK = 32
_PATTERN = Balanced(_BLOCK)


class BalancedLayer(Layer):
    """Forward for batches of one or a few: sixteen neurons side by side, five bytes a weight.

    A block of 32 inputs fits the registers; a weight's input is found there by its uint8 index.
    Neurons without weights are left out.
    """

    name = "balanced"
    phases = ("forward",)

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        if mask.shape[1] % _BLOCK:
            return f"n_in is {mask.shape[1]}; allowed is a multiple of {_BLOCK}"
        if mask.size >= 1 << 32:
            return f"size is {mask.size}; allowed is below 2³²"
        if not mask.satisfies(_PATTERN):
            return f"rows differ in their weights per {_BLOCK} inputs; allowed is the same number"
        return ""

    def _build(self) -> None:
        self._rows = np.flatnonzero(self.mask.row_nnz)
        self._groups = -(-self._rows.size // 16)
        self._blocks = self.n_in // _BLOCK
        self._each = int(self.mask.row_nnz.max()) // self._blocks
        size = self._groups * self._blocks * self._each * 16
        self._index = np.zeros(size, np.uint8)
        self._values = aligned(size)
        source = np.full(size, np.iinfo(np.uint32).max, np.uint32)
        passes.lay_out(self.mask.array, self._rows, self._blocks, self._each, self._index, source)
        # Lanes beyond the last row have no source; what they compute is not used.
        self._used = np.flatnonzero(source != np.iinfo(np.uint32).max)
        self._source = source[self._used]
        self._packed = aligned(self._used.size)
        self._values[:] = 0

    def _repack(self, weights: np.ndarray) -> None:
        _tiled_passes.gather(weights.reshape(-1), self._source, self._packed)
        if self._used.size == self._values.size:
            self._values[:] = self._packed
        else:
            self._values[self._used] = self._packed

    def _forward(self, x: np.ndarray) -> np.ndarray:
        direct = self._rows.size == self.n_out and self.n_out % 16 == 0
        y = (np.empty if direct else np.zeros)((len(x), self.n_out), np.float32)
        parts = ranges(self._groups, self.threads) if self._groups else []
        found = np.empty(0 if direct else self._groups * 16, np.float32)
        for sample, row in zip(x, y, strict=True):
            target = row if direct else found
            run(passes.multiply_balanced, [
                (self._values, self._index, self._blocks, self._each, sample, target, *part)
                for part in parts
            ])  # fmt: skip
            if not direct:
                row[self._rows] = found[: self._rows.size]
        return y


KERNEL = BalancedLayer
