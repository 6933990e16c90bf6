"""Figures of a sparse run: exploration, operations, memory, coverage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from hwsim import Mask
from hwsim.errors import InputError, unknown
from hwsim.patterns import Pattern
from sparse_train.masking.layers import MaskedLayer
from sparse_train.patterns import Projection


class Explored:
    """In-time over-parameterisation: which weights have ever been active.

    Rs = |union of the masks over time| / |weights of the masked layers|.

    Source: Liu et al. 2021 (ITOP), section 3.

        explored = Explored()
        explored.add(sparsifier.masks())   # after each change
        explored.rate
    """

    def __init__(self) -> None:
        self._ever: dict[str, np.ndarray] = {}  # bits, eight a byte: wide layers are not unpacked
        self._sizes: dict[str, int] = {}

    def add(self, masks: Mapping[str, Mask]) -> None:
        """Counts the weights that are active in these masks."""
        for name, mask in masks.items():
            bits = mask.bits
            if name in self._ever:
                bits |= self._ever[name]
            self._ever[name], self._sizes[name] = bits, mask.size

    @property
    def bits(self) -> dict[str, np.ndarray]:
        """Layer → bits of what has ever been active, as `Mask.bits`."""
        return dict(self._ever)

    @property
    def layer_rates(self) -> dict[str, float]:
        """Layer → share of its weights that were ever active."""
        return {name: self._count(name) / size for name, size in self._sizes.items()}

    @property
    def rate(self) -> float:
        """Rs of all masked layers; 0 before the first mask."""
        weights = sum(self._sizes.values())
        return sum(self._count(name) for name in self._sizes) / weights if weights else 0.0

    def _count(self, name: str) -> int:
        return int(np.bitwise_count(self._ever[name]).sum(dtype=np.int64))


@dataclass(frozen=True)
class Operations:
    """Of one layer on one input: parameter bits, multiplications, additions."""

    parameter_bits: float
    multiplications: float
    additions: float


def operations(
    shape: tuple[int, ...],
    density: float = 1.0,
    positions: int = 1,
    *,
    bias: bool = True,
    activation: bool = True,
    bits: int = 32,
) -> Operations:
    """Operations of a Linear or Conv layer by the counting rules of the MicroNet challenge.

    A mask costs a bit per weight; a ReLU counts as a multiplication per output.

    Args:
        shape: of the weight, (n_out, …).
        density: share of active weights.
        positions: outputs per channel: 1 for a vector, height × width of a feature map.
        bias, activation: whether the layer has them.
        bits: of a parameter.

    >>> operations((300, 784)).multiplications
    235500.0
    """
    size, n_out = math.prod(shape), shape[0]
    nnz = size * density
    outputs = n_out * positions
    parameter_bits = nnz * bits + (size if density < 1 else 0) + (n_out * bits if bias else 0)
    return Operations(
        parameter_bits=float(parameter_bits),
        multiplications=float(nnz * positions + (outputs if activation else 0)),
        additions=float(nnz * positions - outputs + (outputs if bias else 0)),
    )


def training_flops(
    kind: str, sparse_forward: float, dense_forward: float, update_interval: int = 100
) -> float:
    """FLOPs of a training step, from those of a forward pass.

    - "dense": 3 f_D
    - "never" (static, SET): 3 f_S
    - "update" (RigL): (3 f_S · ΔT + 2 f_S + f_D) / (ΔT + 1)
    - "always" (SNFS): 2 f_S + f_D

    The names are those of `Algorithm.gradient`.

    Source: Evci et al. 2020, appendix H.

    >>> training_flops("update", 10.0, 100.0, 99)
    30.9
    """
    if kind == "dense":
        return 3 * dense_forward
    if kind == "never":
        return 3 * sparse_forward
    if kind == "always":
        return 2 * sparse_forward + dense_forward
    if kind != "update":
        raise InputError(unknown("kind", kind, ("dense", "never", "update", "always")))
    if update_interval < 1:
        raise InputError(f"update_interval: value is {update_interval}; allowed is at least 1")
    steps = 3 * sparse_forward * update_interval + 2 * sparse_forward + dense_forward
    return steps / (update_interval + 1)


@dataclass(frozen=True)
class Footprint:
    """Bytes of the masked layers: as a dense model has them, and packed by the pattern."""

    dense_weight_bytes: int
    weight_bytes: int
    index_bytes: int
    dense_moment_bytes: int
    moment_bytes: int

    @property
    def saving(self) -> float:
        """Share of the dense bytes that packing saves; negative where indices cost more."""
        dense = self.dense_weight_bytes + self.dense_moment_bytes
        packed = self.weight_bytes + self.index_bytes + self.moment_bytes
        return 1 - packed / dense if dense else 0.0


def footprint(
    masks: Iterable[Mask], pattern: Pattern, *, moments: int = 2, itemsize: int = 4
) -> Footprint:
    """Memory of weights, indices and moments; moments need no indices of their own.

    Args:
        masks: of the layers.
        pattern: whose packed form holds the weights.
        moments: optimizer slots per weight (SGD with momentum 1, Adam 2).
        itemsize: bytes of a value.
    """
    size = values = indices = 0
    for mask in masks:
        packed = pattern.pack(mask, np.zeros(mask.shape, dtype=np.uint8))
        size += mask.size
        values += packed.values.size
        indices += packed.index_bytes
    return Footprint(
        dense_weight_bytes=size * itemsize,
        weight_bytes=values * itemsize,
        index_bytes=indices,
        dense_moment_bytes=size * itemsize * moments,
        moment_bytes=values * itemsize * moments,
    )


class Masked(Protocol):
    """What figures need to know of a model under masks."""

    optimizers: tuple[Optimizer, ...]
    layers: dict[str, MaskedLayer]
    pattern: Projection

    @property
    def density(self) -> float:
        """Active share of the weights under masks."""
        ...

    @property
    def coverage(self) -> float:
        """Share of the model's weights under masks."""
        ...

    def masks(self) -> dict[str, Mask]:
        """Layer → mask."""
        ...

    def trained_masks(self) -> dict[str, Mask]:
        """Layer → weights that the optimizer trains, where not the active ones alone."""
        ...


def run_figures(sparsifier: Masked) -> dict[str, float | int]:
    """What every run records: density, coverage, and bytes of weights, indices and moments.

    Weights that are trained without being used are held too (Top-KAST, SR-STE: all values, and the
    moments of those trained).
    """
    slots = [
        sum(
            isinstance(v, Tensor) and v.shape == layer.parameter.shape
            for optimizer in sparsifier.optimizers
            for v in optimizer.state.get(layer.parameter, {}).values()
        )
        for layer in sparsifier.layers.values()
    ]
    memory = footprint(
        sparsifier.masks().values(),
        sparsifier.pattern.definition,
        moments=max(slots, default=0),
        itemsize=max(layer.parameter.element_size() for layer in sparsifier.layers.values()),
    )
    weight_bytes, moment_bytes = memory.weight_bytes, memory.moment_bytes
    trained = sparsifier.trained_masks()
    if trained:
        share = sum(m.nnz for m in trained.values()) / sum(m.size for m in trained.values())
        weight_bytes = memory.dense_weight_bytes
        moment_bytes = round(memory.dense_moment_bytes * share)
    return {
        "density": sparsifier.density,
        "coverage": sparsifier.coverage,
        "weight_bytes": weight_bytes,
        "index_bytes": memory.index_bytes,
        "moment_bytes": moment_bytes,
        "dense_bytes": memory.dense_weight_bytes + memory.dense_moment_bytes,
    }
