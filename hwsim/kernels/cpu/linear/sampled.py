"""Sampled dense × dense: the gradient of active weights only."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu.layer import Layer
from hwsim.kernels.cpu.tiled import PackedActivations, TiledMatrix


class SampledLayer(Layer):
    """grad_weight: one dot product over the batch per active weight.

    A row of dy stays in registers while the weights of a row and tile are walked.
    """

    name = "sampled"
    phases = ("grad_weight",)

    def _build(self) -> None:
        self.matrix = TiledMatrix(self.mask.array, False, self.threads)

    def _repack(self, weights: np.ndarray) -> None:
        """The gradient does not depend on the weights."""

    def _grad_weight(self, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        sampled = self.matrix.sampled_product(
            PackedActivations.of(dy, self.threads), PackedActivations.of(x, self.threads)
        )
        return self.matrix.spread(sampled).reshape(self.mask.shape)


KERNEL = SampledLayer
