"""What else than products a GPU's step is made of, and products as a step really runs them.

Every kernel is a roof with a share of it that libraries reach. The shares are the same for every
model; a card that was measured has its own, others take the typical ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from hwsim.errors import InputError, unknown
from hwsim.gpu.matmul import DENSE, ELEMENT_BYTES, FAMILIES
from hwsim.workload import Op


class Constant(NamedTuple):
    """One of a card's constants: what it means, what a card without records is given."""

    meaning: str
    typical: float


# Typical: the geometric mean over fitted cards (benchmarks/bench_gpu_steps.py prints the fits).
CONSTANTS: dict[str, Constant] = {
    "product": Constant("seconds of a product in a step over the library's own by itself", 1.0),
    "product_ends": Constant("of the bandwidth, operands and results of its start and end", 1.2),
    "product_single": Constant("the same in float32 on CUDA cores", 1.06),
    "bmm": Constant("of the peak, products of attention by themselves", 0.33),
    "pointwise": Constant("seconds of a convolution of window 1 over its implicit product's", 1.0),
    "conv": Constant("the same of larger windows", 1.0),
    "conv_back": Constant("the same of gradients, over the forward pass's", 1.2),
    "grouped": Constant("of the peak, grouped convolutions, channels filled up to 16", 0.65),
    "grouped_odd": Constant("the same where a group's channels are no power of two", 0.27),
    "turn": Constant("passes that bring a convolution's tensors into its layout, of two", 0.25),
    "depthwise": Constant("of the bandwidth, depthwise convolutions on contiguous tensors", 0.8),
    "depthwise_last": Constant("the same on tensors whose channels lie last", 0.88),
    "depthwise_flops": Constant("of the CUDA-core peak, depthwise convolutions", 0.2),
    "attention": Constant("of the peak, fused attention on whole tiles", 0.8),
    "attention_back": Constant("of the peak, its backward pass", 0.25),
    "elementwise": Constant("of the bandwidth, elementwise kernels", 0.8),
    "fused": Constant("of the bandwidth, kernels that a compiler fused", 0.8),
    "norm": Constant("of the bandwidth, norms and what is fused to them", 0.9),
    "norm_back": Constant("of the bandwidth, norms' backward passes", 0.6),
    "softmax": Constant("of the bandwidth, softmaxes", 0.9),
    "gap_s": Constant("between one kernel and the next", 2.6e-6),
    "l2_rate": Constant("of a pass inside L2, over main memory's", 2.5),
    "l2_share": Constant("of L2 that holds a pass's tensors", 0.5),
}  # fmt: skip
_SHARES = {"norm": "norm", "softmax": "softmax"}
# Assumed: a thread's turn is a load from memory that waits for nothing else.
_TURN_S = 0.2e-6
# Norms and softmaxes of rows. Source: PyTorch 2.1, layer_norm_kernel.cu (128 threads a row) and
# SoftMax.cu (a warp a row up to 1,024 elements; beyond, half a thread an element of a vector of 16
# bytes, as a power of two up to 1,024). 2,048 threads a processor are Volta's, Ampere's, Hopper's.
_THREADS_AN_SM, _THREADS_A_NORM, _WARP, _IN_REGISTERS = 2048, 128, 32, 1024
_VECTOR_BYTES, _SHARED_BYTES = 16.0, 48 * 1024
# Fitted to half of 646 norms and softmaxes on three cards (NeuSight's artifact); see
# benchmarks/bench_float32_kernels.py: seconds of a sum over a row that nothing hides (a softmax
# sums twice), and of L2, what holds the rows in flight until they are read again.
_SUM_S, _ROWS_HELD = 1e-6, 0.8
_TILE = 64
_AMPERE_FLOPS = 2048.0
_HEAD_SIZES = (32, 64, 96, 128, 256)
_GROUP = 16


class StepCard(Protocol):
    """What a card is asked for."""

    @property
    def dram_bytes_per_s(self) -> float:
        """By the data sheet."""
        ...

    @property
    def l2_bytes(self) -> float:
        """Size of the second-level cache."""
        ...

    @property
    def vector_flops(self) -> float:
        """FLOP/s outside tensor cores."""
        ...

    @property
    def sustained(self) -> float:
        """Share of the clock that long work keeps."""
        ...

    @property
    def clock_hz(self) -> float:
        """Of the processors."""
        ...

    @property
    def sms(self) -> int:
        """Streaming multiprocessors."""
        ...

    @property
    def peak_flops(self) -> Mapping[str, float]:
        """Type → FLOP/s by the data sheet."""
        ...

    @property
    def steps(self) -> Mapping[str, float]:
        """Constants of kernels beside products, fitted or assumed."""
        ...

    def peak(self, dtype: str) -> float:
        """FLOP/s of dense products in a type."""
        ...


def constants(given: Mapping[str, float] | None) -> dict[str, float]:
    """A card's own constants, the typical ones where it has none.

    Raises:
        InputError: a name that is none.
    """
    for name in given or {}:
        if name not in CONSTANTS:
            raise InputError(unknown("step constant", name, tuple(CONSTANTS)))
    return {name: (given or {}).get(name, c.typical) for name, c in CONSTANTS.items()}


def stream_s(card: StepCard, op: Op, moved: float) -> float:
    """A pass over `moved` bytes: by main memory, or faster where L2 holds them."""
    again, waiting = rows_of(card, op)
    return max(pass_s(card, moved + again, share_of(op)) + waiting, serial_s(op))


def rows_of(card: StepCard, op: Op) -> tuple[float, float]:
    """Bytes that a norm or softmax of rows reads again from main memory, and seconds it waits.

    `m` rows of `n` elements; each is done by a group of threads that first sums it up and then
    reads it again: from L2, if that holds the rows of all groups that run at a time. Short
    rows of a softmax stay in registers, longer ones in the memory of their group. What a compiler
    makes of several operators is one pass.
    """
    if op.kind not in ("norm", "softmax") or op.fused or not op.m * op.n:
        return 0.0, 0.0
    element = ELEMENT_BYTES[op.dtype]
    threads, readings, sums = _THREADS_A_NORM, 1.0, 1.0
    if op.kind == "softmax":
        if op.n <= _IN_REGISTERS:
            threads, readings, sums = _WARP, 0.0, 0.0
        else:
            vectors = op.n * element / _VECTOR_BYTES
            threads = min(1024, 2 ** math.ceil(math.log2(vectors / 2.0)))
            kept = op.n * element < _SHARED_BYTES and vectors.is_integer()
            readings, sums = 0.0 if kept else 2.0, 2.0
    running = card.sms * (_THREADS_AN_SM // threads)
    in_flight = min(op.m, running) * op.n * element
    missed = 1.0 / (1.0 + (_ROWS_HELD * card.l2_bytes / in_flight) ** 4)
    if op.phase != "forward":  # a gradient and a result are summed up together, then read again
        readings = 2.0 * min(readings, 1.0)
        sums = min(sums, 1.0)
    again = readings * op.m * op.n * element
    return missed * again, op.m / running * sums * _SUM_S


def serial_s(op: Op) -> float:
    """Of a kernel with few threads (`n` of them), each of which does `m` elements in turn."""
    return op.m * _TURN_S if op.kind == "elementwise" and not op.fused else 0.0


def share_of(op: Op) -> str:
    """The constant that says how much of the bandwidth an op's kernel reaches."""
    if op.kind == "norm" and op.phase != "forward":
        return "norm_back"
    by_compiler = op.fused and op.kind not in ("attention", "optimizer")
    return _SHARES.get(op.kind, "fused" if by_compiler else "elementwise")


def gap_share(op: Op) -> float:
    """Of the gap before a kernel, what an op pays: optimizers' kernels take many tensors at once.

    Source: torch 2.13, MultiTensorApply.cuh: 30 to 110 tensors a launch, 36 with four each.
    """
    return 1.0 / 36.0 if op.kind == "optimizer" and op.fused else 1.0


def constant_of(op: Op) -> str:
    """The constant that decides the price of an op that is no weight's product."""
    if op.kind == "attention":
        back = "attention" if op.phase == "forward" else "attention_back"
        return back if op.fused else "bmm"
    if op.kind != "conv":
        return share_of(op)
    if op.count == 1:
        return "pointwise" if op.window == 1 else "conv"
    if op.n > 1:
        return grouped_of(op)
    return "depthwise_last" if op.layout == "channels_last" else "depthwise"


def pass_s(card: StepCard, moved: float, share: str = "elementwise") -> float:
    """Seconds that moving bytes once takes, from the second-level cache where it holds them."""
    own = card.steps
    held = 1.0 / (1.0 + (moved / (card.l2_bytes * own["l2_share"])) ** 4)
    rate = card.dram_bytes_per_s * own[share] * (1.0 + (own["l2_rate"] - 1.0) * held)
    return moved / rate


# (kind, dtype, shape) → seconds of a product by itself.
Alone = Callable[[str, str, tuple[float, ...]], float]


def any_attention_s(card: StepCard, op: Op, alone: Alone) -> float:
    """Fused attention, or one of the products that plain attention is made of."""
    if op.fused:
        return attention_s(card, op)
    if ELEMENT_BYTES[op.dtype] == 2.0:
        return bmm_s(card, op)
    return alone(DENSE, op.dtype, product_of(op)) * product_scale(card, op.dtype)


def any_convolution_s(card: StepCard, op: Op, alone: Alone) -> float:
    """One phase of a convolution: its implicit product, unless it is grouped."""
    product_s = 0.0
    if op.count == 1:
        product_s = alone(DENSE, op.dtype, implicit_product(op)) * product_scale(card, op.dtype)
    return convolution_s(card, op, product_s)


def product_scale(card: StepCard, dtype: str) -> float:
    """Seconds of a product in a step over those by itself."""
    name = "product_single" if FAMILIES[dtype] == "single" else "product"
    return card.steps[name] / card.sustained


def attention_s(card: StepCard, op: Op) -> float:
    """Fused attention: tiles of 64 queries and keys, heads filled up to the kernel's sizes.

    Source: Dao et al. 2022 (FlashAttention); the tile is its kernels' own on these head sizes.
    """
    filled = attention_filled(op)
    share = card.steps["attention" if op.phase == "forward" else "attention_back"]
    compute = op.dense_flops * filled / (attention_peak(card, op.dtype) * share)
    return max(compute, stream_s(card, op, op.bytes))


def attention_peak(card: StepCard, dtype: str) -> float:
    """FLOP/s that fused attention can reach: its kernels issue Ampere's instructions.

    Later cards run these at Ampere's rate a clock and processor, whatever their own is.
    Source: Shah et al. 2024 (FlashAttention-3), section 1: FlashAttention-2 reaches 35 % of an
    H100; NVIDIA A100 whitepaper: 1,024 multiply-adds of 16 bit a clock and SM. Float32 is three
    products in tf32, at half that rate each, in the memory-efficient kernels (CUTLASS's FastF32).
    """
    ampere = _AMPERE_FLOPS * card.sms * card.clock_hz
    if dtype == "float32" and "tfloat32" in card.peak_flops:
        return card.sustained * min(card.peak("tfloat32"), ampere / 2.0) / 3.0
    return card.sustained * min(card.peak(dtype), ampere)


def in_step_s(card: StepCard, op: Op, alone_s: float, moved: float) -> float:
    """A product among others: slower clocks, and the start and end of its tiles, which nothing
    hides: operands are fetched and results written before and after the arithmetic.

    `alone_s` is the library's by itself, `moved` the bytes of its operands and result.
    """
    alone_s /= card.sustained
    if FAMILIES[op.dtype] == "single":
        return alone_s * card.steps["product_single"]
    ends_s = 0.0 if times_vector(op) else pass_s(card, moved, "product_ends")
    return alone_s * card.steps["product"] + ends_s


def times_vector(op: Op) -> bool:
    """Whether a product reads a matrix once, for one row or column: then it has no other ends."""
    return 1 in product_of(op)[:2]


def bmm_s(card: StepCard, op: Op) -> float:
    """Many small products on tensor cores, each filled up to 16."""
    compute = op.dense_flops * bmm_filled(op) / (card.peak(op.dtype) * card.steps["bmm"])
    return max(compute, pass_s(card, op.bytes))


def convolution_s(card: StepCard, op: Op, product_s: float) -> float:
    """One phase of a convolution as the library runs it.

    `product_s` is that of the implicit product. A depthwise convolution is a pass over its
    tensors on CUDA cores; a grouped one a small product for each group. Tensor cores want
    channels last: other tensors are turned first, and the result after.
    """
    own = card.steps
    tensor_cores = ELEMENT_BYTES[op.dtype] == 2.0 or op.dtype == "tfloat32"
    turned = tensor_cores and op.layout == "contiguous"
    memory = pass_s(card, op.bytes)
    if op.count > 1 and op.n == 1:
        share = own["depthwise_last" if op.layout == "channels_last" else "depthwise"]
        moved = op.activation_bytes / (card.dram_bytes_per_s * share)
        seconds = max(moved, op.dense_flops / (card.vector_flops * own["depthwise_flops"]))
        return seconds * (own["conv_back"] if op.phase != "forward" else 1.0)
    if op.count > 1:
        filled = op.dense_flops * grouped_filled(op)
        seconds = filled / (card.peak(op.dtype) * own[grouped_of(op)])
    else:
        seconds = product_s * own["pointwise" if op.window == 1 else "conv"]
    if op.phase != "forward":
        seconds *= own["conv_back"]
    turns = pass_s(card, 2.0 * op.activation_bytes) * own["turn"] if turned else 0.0
    return max(seconds, memory) + turns


def attention_filled(op: Op) -> float:
    """What whole tiles compute over what was asked for."""
    size = next((s for s in _HEAD_SIZES if op.k <= s), op.k)
    return _filled(op.m, _TILE) * _filled(op.n, _TILE) * size / op.k


def bmm_filled(op: Op) -> float:
    """What tensor cores compute over what was asked for, in a batch of small products."""
    return _filled(op.m, _GROUP) * _filled(op.n, _GROUP) * _filled(op.k, _GROUP)


def grouped_filled(op: Op) -> float:
    """The same of a grouped convolution."""
    return _filled(op.n, _GROUP) * _filled(op.k // op.window, _GROUP)


def grouped_of(op: Op) -> str:
    """Libraries have kernels of their own for groups of 4, 8, 16 … channels."""
    return "grouped_odd" if op.n & (op.n - 1) else "grouped"


def product_of(op: Op) -> tuple[float, float, float, float, float]:
    """Rows, outputs, depth, how many, and the share of the rows' operand that is read."""
    if op.kind == "conv":
        return implicit_product(op)
    m, n, k = op.m, op.n, op.k
    sides = {"grad_input": (m, k, n), "grad_weight": (n, k, m)}.get(op.phase, (m, n, k))
    if op.kind == "gemm":
        return sides[0] * op.count, sides[1], sides[2], 1, 1.0
    return (*sides, op.count, 1.0)


def implicit_product(op: Op) -> tuple[float, float, float, float, float]:
    """The product that a convolution is: rows, outputs, depth, how many, and the bytes of the
    operand that is gathered relative to what the product reads.

    Input channels are filled up to what tensor cores load at once (8 of 16 bit, 4 of 32).
    """
    element = ELEMENT_BYTES[op.dtype]
    channels = op.k // op.window
    step = 8 if element == 2.0 else 4
    filled = -(-channels // step) * step
    inputs = max(op.activation_bytes / element - op.m * op.n * op.count, 1.0)
    share = min(inputs / (op.m * op.k * op.count), 1.0)
    if op.phase == "forward":
        return op.m, op.n, filled * op.window, op.count, share
    if op.phase == "grad_input":
        return op.m, filled, op.n * op.window, op.count, 1.0 / op.window
    return filled * op.window, op.n, op.m, op.count, share


def _filled(size: int, step: int) -> float:
    return math.ceil(size / step) * step / size
