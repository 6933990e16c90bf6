"""What the CPU kernels do, counted: the terms whose cost a calibration finds.

The time of a kernel is a sum of counts, each times the seconds that one takes on the machine at
hand. The counts follow the loops of `hwsim.kernels.cpu`; the seconds are fitted to timed kernels
by `hwsim.calibration.measure_cpu`.
"""

from __future__ import annotations

import math

from hwsim.errors import InputError, unknown
from hwsim.kernels.cpu.layout import TILE, WINDOW, lanes_for
from hwsim.mask import Mask
from hwsim.masks.statistical import StatisticalMask

# Term → the bound that it stands for.
TERMS = {
    "call": "launch",  # one call
    "multiply": "compute",  # dense multiply-add
    "weight": "memory",  # position of the dense weight that is read or written
    "spilled": "memory",  # position of it beyond the last-level cache
    "turned": "memory",  # position of a dense weight that is read transposed: in forward
    "tail": "compute",  # the same, once more for each power of two in the samples modulo four
    "activation": "memory",  # input or output element
    "far_activation": "memory",  # the same, where all of them lie beyond the near cache
    "far_weight": "memory",  # position of a dense weight that lies beyond the near cache
    "line": "memory",  # cache line of the dense weight that holds an active weight
    "far_line": "memory",  # the same, of a weight that has more pages than a core translates fast
    "odd": "memory",  # input or output element of the samples modulo eight: packed one by one
    "filled": "memory",  # element of a packed block of samples that fills it up
    "sample": "compute",  # active weight × sample, in vector lanes
    "far_sample": "memory",  # the same, where the inputs lie beyond the near cache
    "visit": "gather",  # active weight × block of samples
    "segment": "gather",  # row × tile × block of samples
    "gathered": "gather",  # active weight × sample, one at a time
    "step": "gather",  # look-up for eight rows × sample
    "row": "gather",  # output row × sample
    "byte": "memory",  # byte that is streamed through caches
    "far_byte": "memory",  # byte that is streamed through main memory
}
# Where the speed of reading inputs again changes: a first-level cache, and from half to twice of a
# second-level cache, the sizes of most cores. A tile of 160 inputs and 64 samples lies beyond the
# first.
NEAR_TILE_BYTES = 1 << 15
NEAR_INPUT_BYTES = 1 << 18
# Activations packed and unpacked, and a dense gradient filled with zeros: what is more than this
# comes and goes through the last-level cache, and new memory has to be mapped for it.
NEAR_ACTIVATION_BYTES = 1 << 20
NEAR_WEIGHT_BYTES = 1 << 21
# From half to twice of what the second-level translation buffers of most cores cover: 2,048 pages
# of 4 KiB. Weights gathered by columns come from another page each.
NEAR_PAGES_BYTES = 1 << 22
# Operations on more than this find little of it in the last-level cache, which others use too.
NEAR_STREAM_BYTES = 1 << 22
ROW_BY_ROW_SAMPLES = 8
"""Batches above it are not for kernels that take one sample after the other."""
_LINE = 16  # float32 numbers
_GROUPS = 16  # of rows that are planned where no more of a mask is known than its statistics
# fmt: off
KERNEL_TERMS = {
    "dense": ("call", "multiply", "tail", "weight", "turned", "far_weight", "activation"),
    "dense_vector": ("call", "weight", "turned", "spilled"),
    "dense_gradient": ("call", "multiply", "weight", "far_weight", "activation"),
    "csr": ("call", "gathered", "visit", "sample", "far_sample", "activation"),
    "gather": ("call", "gathered", "row"),
    "lookup": ("call", "step", "row"),
    "two_four": ("call", "gathered", "row"),
    "tiled": (
        "call", "sample", "far_sample", "visit", "segment",
        "activation", "far_activation", "odd", "filled",
    ),
    "sampled": (
        "call", "sample", "far_sample", "visit", "activation", "filled", "weight", "far_line",
    ),
    "repack": ("call", "visit", "line", "far_line"),
    "select": ("call", "weight"),
    "stream": ("call", "byte", "far_byte"),
}
# fmt: on


def terms(
    kernel: str, phase: str, m: int, n: int, k: int, nnz: int, cached_weights: int = 1 << 62,
    *, lines: int = 0, steps: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Term → how often, for one call of a kernel on a layer y = x·Wᵀ; sizes as in `hwsim.gemm`.

    `cached_weights` is how many float32 weights the last-level cache holds; `lines` those of the
    weight that the mask uses, see `weight_lines`, or 0 for as many as a random mask does; `steps`
    those of the kernel "lookup" under the mask, see `lookup_steps`.

    Raises:
        InputError: an unknown kernel, or "lookup" without its steps.

    >>> terms("gather", "forward", 1, 4, 8, 10)
    {'call': 1.0, 'gathered': 10.0, 'row': 4.0}
    """
    if kernel not in KERNEL_TERMS:
        raise InputError(unknown("CPU kernel", kernel, tuple(KERNEL_TERMS)))
    if kernel == "stream":
        return stream_terms(4 * m * n * k)
    if kernel == "lookup" and nnz and not steps:
        raise InputError(f"steps: value is {steps}; allowed is the mask's `lookup_steps`")
    rows, columns = (k, n) if phase == "grad_input" else (n, k)
    lanes = lanes_for(m)
    blocks = -(-m // lanes)
    counts = {
        "call": 1,
        "multiply": m * n * k,
        "weight": n * k,
        "turned": n * k if phase == "forward" else 0,
        "tail": n * k * (m % 4).bit_count(),
        "far_weight": n * k * _far_share(4 * n * k, NEAR_WEIGHT_BYTES),
        "spilled": max(0, n * k - cached_weights),
        "activation": m * (n + k),
        "far_activation": m * (n + k) * _far_share(4 * m * (n + k), NEAR_ACTIVATION_BYTES),
        "odd": m % 8 * (n + k),
        "filled": (blocks * lanes - m) * (n + k if phase == "grad_weight" else columns),
        "sample": nnz * blocks * lanes,
        "visit": nnz * blocks,
        "segment": rows * -(-columns // TILE) * blocks,
        "gathered": nnz * m,
        "step": steps * m,
        "row": rows * m,
    }
    counts["far_sample"] = 0
    if kernel in ("repack", "sampled"):
        counts["line"] = lines or expected_lines(n * k, nnz)
        counts["far_line"] = counts["line"] * _far_share(4 * n * k, NEAR_PAGES_BYTES)
    if kernel in ("csr", "repack"):
        counts["visit"] = nnz  # indices and values are read once, whatever the batch
    if kernel == "csr" and m == 1:
        counts["visit"] = counts["sample"] = counts["activation"] = 0
    elif kernel == "csr":
        counts["gathered"], counts["sample"] = 0, nnz * m
        counts["far_sample"] = nnz * m * _far_share(4 * columns * m, NEAR_INPUT_BYTES)
    if kernel in ("tiled", "sampled"):
        far = 4 * TILE * lanes > NEAR_TILE_BYTES
        counts["far_sample"] = counts["sample"] if far else 0
    return {term: float(counts[term]) for term in KERNEL_TERMS[kernel]}


def weight_lines(mask: Mask) -> int:
    """Lines of 64 bytes of the dense float32 weight that hold an active one.

    Values are gathered from that weight. A line comes whole, so where a mask has its weights, side
    by side or far apart, decides how much memory that reads.
    """
    if isinstance(mask, StatisticalMask):
        return mask.lines_used(_LINE)
    from hwsim.cpu.weight_lines import weight_lines as counted

    return counted(mask.array)


def lookup_steps(mask: Mask, phase: str) -> int:
    """Steps of the kernel "lookup" for one sample, in forward or grad_input."""
    from hwsim.kernels.cpu.linear.lookup import planned_steps

    if isinstance(mask, StatisticalMask):
        axis = 1 if phase == "grad_input" else 0
        strip = mask.strip(axis, _GROUPS, WINDOW)
        share = -(-mask.shape[axis] // WINDOW) / (len(strip) / WINDOW)
        return round(planned_steps(Mask(strip, copy=False), False) * share)
    return planned_steps(mask, phase == "grad_input")


def expected_lines(weights: int, nnz: int) -> float:
    """`weight_lines` of a random mask, on average.

    >>> expected_lines(160, 160)
    10.0
    """
    return math.ceil(weights / _LINE) * (1.0 - (1.0 - nnz / weights) ** _LINE)


def _far_share(used_bytes: int, near_bytes: int) -> float:
    """How much of what is used lies beyond a near cache.

    None up to `near_bytes`, all from four times of it, along the logarithm between.
    """
    return min(1.0, max(0.0, math.log2(max(used_bytes, 1) / near_bytes) / 2))


def stream_terms(moved_bytes: float) -> dict[str, float]:
    """The terms of one operation that reads and writes so much memory in all."""
    far = moved_bytes > NEAR_STREAM_BYTES
    return {
        "call": 1.0,
        "byte": 0.0 if far else float(moved_bytes),
        "far_byte": float(moved_bytes) if far else 0.0,
    }


def dense_kernel(phase: str, m: int) -> str:
    """Which dense kernel runs a product: they are bound by different things."""
    if phase == "grad_weight":
        return "dense_gradient"
    return "dense_vector" if m == 1 else "dense"
