"""S-STE: N:M from scratch, through a pruning function without jumps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sparse_train.algorithms._base import Algorithm, Outcome, State, View
from sparse_train.patterns import Projection
from sparse_train.selection.arrays import Array, at_least, filled, on_host, sign, where


@dataclass(frozen=True)
class SSTE(Algorithm):
    """The model sees β · sign(w) · (|w| − t) of the largest |w| of each group, t the next smaller.

    A weight that leaves a group has shrunk to 0 before, and one that enters grows from 0, so that
    the loss has no jumps where masks change. All weights are trained by the gradient of what the
    model sees (straight-through). β, one number a layer, makes up for what t takes away: at the
    first masks Σ w·s / Σ s², with s what is seen without it (the least squared error); it stays.
    The paper's unbiased 2:4 estimate of output gradients and its float8 are not part of this.

    Source: Hu et al. 2024 (arXiv 2409.09099), section 4.
    """

    on_device: ClassVar[bool] = True
    gradient: ClassVar[str] = "always"
    pattern: ClassVar[str] = "2:4"
    patterns: ClassVar[tuple[str, ...]] = ("n_m",)
    patterns_reason: ClassVar[str] = "the threshold is that of a group of m weights"
    first_mask: ClassVar[str] = "magnitude"
    update_interval: ClassVar[int] = 1
    dense_weights: ClassVar[bool] = True

    def update(self, view: View, state: State) -> Outcome:
        masks = {
            name: view.pattern.project(abs(weight), view.budgets[name])
            for name, weight in view.weights.items()
        }
        known = state.get("scale", {})
        scale = {
            name: known[name] if name in known else _scale(view, name, mask)
            for name, mask in masks.items()
        }
        everything = {name: filled(mask.shape, True, mask) for name, mask in masks.items()}
        return Outcome(masks, {"scale": scale}, trained=everything)

    def shows(
        self, layer: str, weight: Array, mask: Array, pattern: Projection, state: State
    ) -> Array:
        return _soft(weight, mask, pattern) * np.float32(state["scale"][layer])


def _scale(view: View, layer: str, mask: Array) -> float:
    weight = view.weights[layer]
    seen = _soft(weight, mask, view.pattern)
    weight, seen = (_double(values) for values in (weight, seen))
    squares = float((seen * seen).sum())
    return float((weight * seen).sum()) / squares if squares > 0 else 1.0


def _soft(weight: Array, mask: Array, pattern: Any) -> Array:
    """Active weights, drawn towards 0 by the largest |w| of their group that is not active.

    Between updates an inactive weight may have outgrown an active one, which is then 0.
    """
    size = abs(weight)
    least = _of_groups(where(mask, 0 * size, size), pattern.m, pattern.axis)
    return where(mask, sign(weight) * at_least(size - least, 0.0), 0)


def _of_groups(values: Array, m: int, axis: int) -> Array:
    """Each value's group's largest; groups are m along an axis, the last may be shorter."""
    lines = values if axis else values.T
    count, length = lines.shape
    short = -length % m
    if on_host(values):
        padded = np.pad(lines, ((0, 0), (0, short))).reshape(count, -1, m)
        spread = np.repeat(padded.max(axis=2), m, axis=1)[:, :length]
    else:
        import torch

        padded = torch.nn.functional.pad(lines, (0, short)).reshape(count, -1, m)
        spread = padded.amax(dim=2).repeat_interleave(m, dim=1)[:, :length]
    return spread if axis else spread.T


def _double(values: Array) -> Array:
    return values.astype(np.float64) if on_host(values) else values.double()


ALGORITHM = SSTE
