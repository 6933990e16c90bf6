"""What is said of a GPU: its data sheet, fitted constants, and how its host and library work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.device import Device, parameter
from hwsim.errors import InputError
from hwsim.gpu.matmul import ProductCard


@dataclass(frozen=True, eq=False)
class DescribedGpu(Device):
    """A GPU's parameters, each with unit and meaning; `hwsim.devices.gpu.Gpu` prices by them."""

    clock_hz: float = parameter("Hz", "boost clock; turns seconds into cycles", above=0.0)
    sms: int = parameter("SMs", "streaming multiprocessors", at_least=1, integer=True)
    l2_bytes: float = parameter("B", "second-level cache", above=0.0)
    dram_bytes_per_s: float = parameter("B/s", "main memory bandwidth", above=0.0)
    peak_flops: Mapping[str, float] = parameter(
        "FLOP/s", "dense tensor-core peak by dtype; 2:4 has twice that", above=0.0, by_dtype=True
    )
    vector_flops: float = parameter("FLOP/s", "CUDA-core peak in float32", above=0.0)
    boost: float = parameter(
        "1", "highest clock seen over the data sheet's boost clock", at_least=1.0, default=1.0
    )
    sustained: float = parameter(
        "1", "of the boost clock, held in a step: less where the power limit of the card is low",
        above=0.0, at_most=1.0, default=1.0,
    )  # fmt: skip
    fit: str = parameter(
        "1", "whose fit is used: this card's, another's scaled by data sheet, or none",
        choices=("own", "derived", "none"), default="none",
    )  # fmt: skip
    dense_fit: Mapping[str, list[float]] | None = parameter(
        "mixed", "fitted parameters of dense products, see hwsim/gpu/matmul.py", vectors=True,
        default=None,
    )  # fmt: skip
    sparse_fit: Mapping[str, list[float]] | None = parameter(
        "mixed", "fitted parameters of 2:4 products, see hwsim/gpu/matmul.py", vectors=True,
        default=None,
    )  # fmt: skip
    launch: str = parameter(
        "1", "captured graphs, or one call by the host per kernel", choices=("graph", "eager"),
        default="graph",
    )  # fmt: skip
    eager_s: float = parameter(
        "s", "least time between two eager operators: 15 µs as GPT-2-large trains on an H100 in "
        "PyTorch 2.1; 40 to 70 µs in training loops with older hosts", at_least=0.0,
        default=1.5e-5,
    )  # fmt: skip
    sparse_units: float = parameter(
        "1", "2:4 tensor cores: 1 has them, 0 has not", at_least=0.0, at_most=1.0, default=1.0
    )
    packing: str = parameter(
        "1", "2:4 packing: fused prune and compress, the library's compress, or values that rest",
        choices=("fused", "library", "never"), default="fused",
    )  # fmt: skip
    fused_pack_share: float = parameter(
        "1", "of the bandwidth, fused packing; measured in steps on an A100: 0.085 and 0.26 ms "
        "(pytorch/ao)", above=0.0, default=0.065,
    )  # fmt: skip
    library_pack_share: float = parameter(
        "1", "of the bandwidth, the library's", above=0.0, default=0.018
    )
    algorithm: str = parameter(
        "1", "of products on tensor cores: searched among the library's once per shape, or its "
        "default: 128 × 128 tiles dense, 256 × 128 under 2:4, in whole waves",
        choices=("searched", "default"), default="searched",
    )  # fmt: skip
    batched: str = parameter(
        "1", "tiles of batches of products on CUDA cores: cuBLAS takes 128 × 128 on Ampere, "
        "searches on Volta", choices=("square", "searched"), default="square",
    )  # fmt: skip
    descriptors: str = parameter(
        "1", "plan of a 2:4 product: kept per shape, or made in every call",
        choices=("cached", "per_call"), default="cached",
    )  # fmt: skip
    descriptor_s: float = parameter("s", "making one plan", at_least=0.0, default=1.5e-4)
    timer_tick_s: float = parameter(
        "s", "visible step of the clock that timed the records; acts on price_record alone",
        at_least=0.0, default=0.0,
    )  # fmt: skip
    timer_offset_s: float = parameter("s", "where that clock's multiples lie", default=0.0)
    step_fit: Mapping[str, float] | None = parameter(
        "mixed", "constants of a step's kernels, see hwsim/gpu/whole_steps.py; the typical ones "
        "where it names none", above=0.0, by_dtype=True, default=None,
    )  # fmt: skip
    step_spread: float = parameter(
        "1", "half-width of a whole step's interval, in log", above=0.0, default=0.15
    )
    stream_share: float = parameter(
        "1", "of the bandwidth, by passes of sparse kernels", above=0.0, default=0.88
    )
    csr_share: float = parameter(
        "1", "of the CUDA-core peak, by CSR products", above=0.0, default=0.215
    )
    gather_share: float = parameter(
        "1", "of the CUDA-core peak, by constant fan-in", above=0.0, default=0.25
    )
    block_share: float = parameter(
        "1", "of the peak, by tiles of blocks 128 high", above=0.0, default=0.6
    )

    @property
    def stream_bytes_per_s(self) -> float:
        """Bytes a second of a pass over main memory."""
        return self.dram_bytes_per_s * self.stream_share

    @property
    def card(self) -> ProductCard:
        """What rules of products ask of the card."""
        return ProductCard(self.sms, self.l2_bytes, self.dram_bytes_per_s)

    def peak(self, dtype: str) -> float:
        """Dense FLOP/s: tensor cores where the card has them for `dtype`, else CUDA cores."""
        if dtype in self.peak_flops:
            return self.peak_flops[dtype]
        if dtype == "float64":
            return self.vector_flops / 2.0
        if dtype in ("float32", "bfloat16", "float16"):  # 16 bit is computed as float32 then
            return self.vector_flops
        raise InputError(
            f"device {self.name!r}: dtype is {dtype!r}; allowed: "
            f"{', '.join(sorted({*self.peak_flops, 'float32', 'float64'}))}"
        )
