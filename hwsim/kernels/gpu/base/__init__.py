"""What every GPU kernel checks, and where Triton's may run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from hwsim.errors import InputError

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A masked weight in a kernel's own form.

    Attributes:
        values: active values, in the kernel's order.
        indices: name → integer tensor.
        shape: (n, k) of the weight.
        transposed: the values once more, as grad_input reads them, where the kernel wants that.
        longest: entries of the fullest row, where the kernel needs it; kept here, since asking
            the device for it would end the capture of a graph.
    """

    values: torch.Tensor
    indices: dict[str, torch.Tensor]
    shape: tuple[int, int]
    transposed: torch.Tensor | None = None
    longest: int = 0


class GpuKernel(ABC):
    """The three products of a layer y = x·Wᵀ: x (m, k), W (n, k), y (m, n).

    Raises (all methods):
        InputError: a wrong shape, dtype or device; the value and what is allowed are named.
    """

    name: ClassVar[str] = ""
    dtypes: ClassVar[tuple[torch.dtype, ...]] = FLOATS

    @abstractmethod
    def pack(self, weight: torch.Tensor, mask: torch.Tensor) -> PackedWeight:
        """The active values of `weight` (n, k) under a boolean `mask` of its shape."""

    @abstractmethod
    def forward(self, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        """x (m, k) → y (m, n)."""

    @abstractmethod
    def grad_input(self, dy: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        """dy (m, n) → dx (m, k)."""

    @abstractmethod
    def grad_weight(self, dy: torch.Tensor, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        """dy (m, n), x (m, k) → the gradient of `packed.values`, in their order, float32."""

    @abstractmethod
    def unpack(self, values: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        """Values in the kernel's order → (n, k), zero where inactive."""

    def check_weight(self, weight: torch.Tensor, mask: torch.Tensor) -> None:
        """An InputError unless weight and mask can be packed."""
        self._check(weight, "weight")
        if weight.ndim != 2 or 0 in weight.shape:
            raise InputError(
                f"weight: shape is {tuple(weight.shape)}; allowed is (n, k), both at least 1"
            )
        if mask.dtype != torch.bool or mask.shape != weight.shape or mask.device != weight.device:
            raise InputError(
                f"mask: {mask.dtype} {tuple(mask.shape)} on {mask.device}; "
                f"allowed is torch.bool {tuple(weight.shape)} on {weight.device}"
            )

    def check_operand(self, name: str, operand: torch.Tensor, columns: int, like: Any) -> None:
        """An activation of `columns` columns, of the dtype and on the device of `like`."""
        self._check(operand, name)
        if operand.ndim != 2 or operand.shape[0] < 1 or operand.shape[1] != columns:
            raise InputError(
                f"{name}: shape is {tuple(operand.shape)}; allowed is (m, {columns}), m at least 1"
            )
        if operand.dtype != like.dtype or operand.device != like.device:
            raise InputError(
                f"{name}: {operand.dtype} on {operand.device}; "
                f"allowed is {like.dtype} on {like.device}, as the weight"
            )

    def check_pair(self, dy: torch.Tensor, x: torch.Tensor, packed: PackedWeight) -> None:
        """An InputError unless dy and x are operands of the weight's gradient."""
        self.check_operand("dy", dy, packed.shape[0], packed.values)
        self.check_operand("x", x, packed.shape[1], packed.values)
        if dy.shape[0] != x.shape[0]:
            raise InputError(f"x: has {x.shape[0]} rows; allowed is {dy.shape[0]}, as dy")

    def _check(self, tensor: Any, name: str) -> None:
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"{name}: type is {type(tensor).__name__}; allowed is torch.Tensor")
        if tensor.dtype not in self.dtypes:
            allowed = ", ".join(str(d) for d in self.dtypes)
            raise InputError(f"{name}: dtype is {tensor.dtype}; {self.name} takes {allowed}")
        self.check_device(tensor, name)

    def check_device(self, tensor: torch.Tensor, name: str) -> None:
        """An InputError unless the tensor lies where the kernel runs."""
        if tensor.device.type != "cuda":
            raise InputError(f"{name}: device is {tensor.device}; {self.name} runs on cuda only")


class TritonKernel(GpuKernel):
    """A kernel written in Triton; the interpreter takes CPU tensors too."""

    def check_device(self, tensor: torch.Tensor, name: str) -> None:
        if tensor.device.type == "cuda" or (tensor.device.type == "cpu" and interpreted()):
            return
        raise InputError(
            f"{name}: device is {tensor.device}; {self.name} runs on cuda, "
            "or on the cpu with TRITON_INTERPRET=1 set before it is imported"
        )


def shape_of(weight: torch.Tensor) -> tuple[int, int]:
    """(n, k) of a weight that has been checked."""
    return weight.shape[0], weight.shape[1]


def interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def widened(operand: torch.Tensor) -> bool:
    """The interpreter's dot takes bfloat16's bits for integers: it is given float32 instead."""
    return operand.dtype == torch.bfloat16 and interpreted()


def row_starts(mask: torch.Tensor) -> torch.Tensor:
    """Where each row's active entries start, int32 (rows + 1,)."""
    counts = mask.sum(dim=1)
    starts = torch.zeros(mask.shape[0] + 1, dtype=torch.int32, device=mask.device)
    starts[1:] = counts.cumsum(0)
    return starts
