"""A multi-layer perceptron."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from hwsim.errors import InputError
from sparse_train.models._family import Family, rounded_width
from sparse_train.weightless import weightless

# small: ours, trained in seconds; mnist: LeNet-300-100, the usual first network of the
# sparse-training papers; wide: 4 × 1024.
PRESETS = {
    "small": (64, 128, 128, 10),
    "mnist": (784, 300, 100, 10),
    "wide": (784, 1024, 1024, 1024, 1024, 10),
}


class Mlp(nn.Sequential):
    """Linear layers with ReLU between them: (batch, widths[0]) → (batch, widths[-1])."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        if len(widths) < 2 or min(widths) < 1:
            raise InputError(f"widths: value is {widths}; allowed are two or more, each at least 1")
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers[:-1])


def _build(preset: str, batch_size: int, length: int, share: float) -> tuple[Mlp, Tensor]:
    first, *inner, last = PRESETS[preset]
    widths = (first, *(rounded_width(share, width, 1) for width in inner), last)
    with weightless():
        return Mlp(widths), torch.empty(batch_size, widths[0])


FAMILY = Family(
    presets=tuple(PRESETS), build=_build, widths=lambda preset: max(PRESETS[preset][1:-1])
)
