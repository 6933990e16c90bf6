"""What an optimizer's update reads, writes and computes, by the kernels that it is run in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hwsim.workload import DTYPE_BYTES, Op


@dataclass(frozen=True)
class Optimizer:
    """Per weight: state tensors that are read and written, and arithmetic operations.

    Operations are counted off the update's formula in torch's documentation, one for each sign.
    In one fused kernel a step with s states moves 3 + 2s times the weight: weight, gradient and
    states in, weight and states out. Otherwise each kernel reads its operands and writes its
    result.

    Attributes:
        states: tensors of the weight's shape that are kept.
        flops: operations a weight.
        kernels: tensors that each kernel reads and writes, one after the other.
        together: whether a kernel takes many parameters at once.
        scalar_bytes: the step counter that torch keeps with each parameter.
        state_bytes: of a state tensor's element, in one fused kernel; None: as the weight's.
    """

    states: int
    flops: int
    kernels: tuple[int, ...]
    together: bool = True
    scalar_bytes: int = 0
    state_bytes: int | None = None

    @property
    def streams(self) -> int:
        """Tensors of the weight's size that are moved."""
        return sum(self.kernels)

    def moved_bytes(self, streams: int, itemsize: int) -> int:
        """Bytes a weight of kernels that read and write so many tensors."""
        if self.state_bytes is None:
            return streams * itemsize
        states = 2 * self.states
        return (streams - states) * itemsize + states * self.state_bytes

    def held_bytes(self, itemsize: int) -> int:
        """Bytes a weight of the states."""
        return self.states * (itemsize if self.state_bytes is None else self.state_bytes)


def _fused(states: int, flops: int, scalar_bytes: int = 0) -> Optimizer:
    return Optimizer(states, flops, (3 + 2 * states,), scalar_bytes=scalar_bytes)


_ONE_KERNEL = {
    "sgd": _fused(0, 2),
    "sgd_momentum": _fused(1, 4),
    "adam": _fused(2, 12, scalar_bytes=4),
    "adamw": _fused(2, 13, scalar_bytes=4),
}
# lerp, mul, addcmul, sqrt, div, add, addcdiv; before them the weights' decay.
_ADAM = (3, 2, 3, 2, 2, 2, 4)
# Source: torch 2.13, torch/optim/sgd.py and adam.py, `_multi_tensor_*` and `_single_tensor_*`.
_KERNELS = {"sgd": (3,), "sgd_momentum": (2, 3, 3), "adam": _ADAM, "adamw": (2, *_ADAM)}

# Two states of a byte, each looked up and scaled on the way in, scaled and searched on the way out;
# a scale for 2,048 of them is left out. Source: Dettmers et al. 2022 (8-bit Optimizers via
# Block-wise Quantization), section 2.
_8BIT = replace(_fused(2, 21, scalar_bytes=4), state_bytes=1)

# "adamw" is one fused kernel; "adamw-foreach" is torch's default on CUDA, a kernel for each
# operation and many parameters; "adamw-unfused" one for each operation and parameter.
OPTIMIZERS: Mapping[str, Optimizer] = {
    **_ONE_KERNEL,
    "adamw8bit": _8BIT,
    **{f"{n}-foreach": replace(o, kernels=_KERNELS[n]) for n, o in _ONE_KERNEL.items()},
    **{
        f"{n}-unfused": replace(o, kernels=_KERNELS[n], together=False)
        for n, o in _ONE_KERNEL.items()
    },
}


def update_ops(
    rule: Optimizer, label: str, numel: int, shape: tuple[int, int] | None, dtype: str
) -> list[Op]:
    """The update of one parameter, or of a block of its rows.

    Where a kernel takes parameters one by one, an op for each kernel.

    Args:
        label: its layer's name.
        shape: (n_out, n_in) of a weight that masks act on.
    """
    found = []
    parts = [rule.streams] if rule.together else rule.kernels
    for i, streams in enumerate(parts):
        moved = rule.moved_bytes(streams, DTYPE_BYTES[dtype]) * numel
        flops = rule.flops * (i + 1) // len(parts) - rule.flops * i // len(parts)
        found.append(
            Op(
                "optimizer", "update", label, dtype=dtype, dense_flops=flops * numel,
                activation_bytes=0 if shape else moved, weight_bytes=moved if shape else 0,
                weight_shape=shape, fused=rule.together,
            )
        )  # fmt: skip
    return found
