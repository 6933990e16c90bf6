"""What a kernel's accesses do to the caches of a processor, under the very mask of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.caches.cache import LevelCounts
from hwsim.caches.traces import layer_counts
from hwsim.device import Device
from hwsim.devices.cpu import Cpu
from hwsim.mask import Mask
from hwsim.workload import Op

KERNELS = ("csr", "gather", "tiled", "sampled")
# L1 and L2 are those of Zen 3 and Zen 4 (AMD 56665, section 2.1); the last level is the device's.
_L1, _L2, _LAST_WAYS, _LINE = ("L1", 64, 8), ("L2", 1024, 8), 16, 64
# Products of a weight and a sample beyond which a whole simulation takes more than some seconds.
MOST_PRODUCTS = 2_000_000_000


@dataclass(frozen=True)
class Traffic:
    """One kernel under one mask, from empty caches.

    Attributes:
        kernel: that was simulated.
        levels: accesses, misses, write-backs of each level, nearest the core first.
        line_bytes: of a cache line.
        assumed_bytes: that the price takes to be moved.
    """

    kernel: str
    levels: tuple[LevelCounts, ...]
    line_bytes: int
    assumed_bytes: float

    def bytes_below(self, level: LevelCounts) -> int:
        """Bytes between a level and what lies below it, both ways."""
        return (level.misses + level.write_backs) * self.line_bytes


def cache_traffic(device: Device, op: Op, kernel: str, assumed_bytes: float) -> Traffic | str:
    """The simulated traffic of an op's kernel, or why there is none."""
    if not isinstance(device, Cpu):
        return f"{device.name} is no processor with caches"
    if kernel not in KERNELS:
        return f"kernel {kernel}: no trace of it; simulated are {', '.join(KERNELS)}"
    if op.mask is None:
        return "the layer is dense"
    products = op.mask.nnz * op.m
    if products > MOST_PRODUCTS:
        return f"{products:.3g} products; simulated are {MOST_PRODUCTS:.0g} at most"
    mask = op.mask
    if op.phase == "grad_input":  # The same kernel over the transposed weight.
        mask = Mask(np.ascontiguousarray(mask.array.T), copy=False)
    sets = 1 << max(0, round(np.log2(device.last_level_bytes / (_LAST_WAYS * _LINE))))
    levels = (_L1, _L2, ("L3", sets, _LAST_WAYS))
    counts = layer_counts(kernel, mask, op.m, levels)
    return Traffic(kernel, counts.levels, counts.line_bytes, assumed_bytes)
