"""2:4 products by torch's two backends, cuSPARSELt and CUTLASS; CUDA only."""

from __future__ import annotations

from typing import Any

import torch

from hwsim.errors import InputError, unknown
from hwsim.kernels.gpu.base import GpuKernel, PackedWeight, shape_of

BACKENDS = ("cusparselt", "cutlass")
# (rows, columns) multiples of the sparse weight, by backend and dtype; torch 2.13,
# torch/sparse/semi_structured.py.
MULTIPLES = {
    "cusparselt": {torch.float16: (16, 16), torch.bfloat16: (16, 16)},
    "cutlass": {torch.float16: (32, 64), torch.bfloat16: (32, 64), torch.float32: (32, 32)},
}


class TwoFour(GpuKernel):
    """Forward with the weight packed along its inputs, grad_input with its transpose packed.

    grad_input needs a transposable mask; with another one it is refused. grad_weight is dense:
    both its operands are. float32 runs as tf32 and takes 1:2 masks.

    Args:
        backend: "cusparselt" or "cutlass".

    Source: Mishra et al. 2021; Hubara et al. 2021 (transposable masks).
    """

    name = "2:4"

    def __init__(self, backend: str = "cusparselt") -> None:
        if backend not in BACKENDS:
            raise InputError(unknown("2:4 backend", backend, BACKENDS))
        self.backend = backend

    def pack(self, weight: torch.Tensor, mask: torch.Tensor) -> PackedWeight:
        self.check_weight(weight, mask)
        multiples = MULTIPLES[self.backend].get(weight.dtype)
        if multiples is None:
            allowed = ", ".join(str(d) for d in MULTIPLES[self.backend])
            raise InputError(f"weight: dtype is {weight.dtype}; {self.backend} takes {allowed}")
        check_two_four(mask, multiples, "along the inputs", weight.dtype)
        masked = weight * mask
        transposed = None
        if is_two_four(mask.t(), weight.dtype) and not (mask.shape[1] % multiples[0]):
            transposed = self.compressed(masked.t().contiguous())
        indices = {"mask": mask}
        return PackedWeight(self.compressed(masked), indices, shape_of(weight), transposed)

    def forward(self, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("x", x, packed.shape[1], packed.values)
        return torch.nn.functional.linear(x, packed.values)

    def grad_input(self, dy: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("dy", dy, packed.shape[0], packed.values)
        if packed.transposed is None:
            raise InputError("mask: not 2:4 along the outputs; grad_input needs a transposable one")
        return torch.nn.functional.linear(dy, packed.transposed)

    def grad_weight(self, dy: torch.Tensor, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_pair(dy, x, packed)
        return dy.t() @ x * packed.indices["mask"]

    def unpack(self, values: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        return values.to_dense() if hasattr(values, "packed") else values

    def compressed(self, weight: torch.Tensor, algorithm: int = 0) -> Any:
        """A weight that is 2:4 along its inputs, packed; unchecked, so that it can be timed."""
        from torch.sparse import (
            SparseSemiStructuredTensorCUSPARSELT,
            SparseSemiStructuredTensorCUTLASS,
        )

        chosen = (
            SparseSemiStructuredTensorCUTLASS
            if self.backend == "cutlass"
            else SparseSemiStructuredTensorCUSPARSELT
        )
        packed = chosen.from_dense(weight)
        packed.alg_id_cusparselt = algorithm  # an argument in some versions of torch only
        return packed


def fused(weight: torch.Tensor) -> Any:
    """Pruned to the two largest magnitudes of each four in both directions, packed for both.

    One pass, by cuSPARSELt's format; `.t()` of it is the operand of grad_input. A weight that is
    2:4 in both directions already keeps every active value. The library ranks by signed value
    unless told: zeros would then win over negative weights. It writes the format of one generation
    of cards by its own code, so a product must be checked before it is believed.
    """
    from torch.sparse import SparseSemiStructuredTensorCUSPARSELT

    return SparseSemiStructuredTensorCUSPARSELT.prune_dense_static_sort(
        weight, algorithm="largest_abs_values_greedy"
    )


def search(packed: Any, rows: int) -> bool:
    """Sets cuSPARSELt's fastest algorithm for activations of `rows` rows; whether it was found.

    Unless told, torch takes algorithm 0 at every size. Where the library's search fails, that
    one stays.
    """
    x = torch.randn(rows, packed.shape[1], dtype=packed.dtype, device=packed.device)
    try:
        found = torch._cslt_sparse_mm_search(packed.packed, x.t(), transpose_result=True)
    except RuntimeError:
        return False
    packed.alg_id_cusparselt = found
    return True


def is_two_four(mask: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> bool:
    """At most two active in every four consecutive entries of a row; in float32 one in every two.

    Sparse tensor cores keep one of two in tf32.
    """
    kept, of = (1, 2) if dtype == torch.float32 else (2, 4)
    if mask.shape[1] % of:
        return False
    return bool((mask.reshape(mask.shape[0], -1, of).sum(dim=2) <= kept).all())


def check_two_four(
    mask: torch.Tensor,
    multiples: tuple[int, int],
    where: str,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """An InputError unless `mask` is 2:4, 1:2 in float32, and of sizes that the backend takes."""
    if mask.shape[0] % multiples[0] or mask.shape[1] % multiples[1]:
        raise InputError(
            f"weight: {mask.shape[0]}×{mask.shape[1]}; allowed are multiples of "
            f"{multiples[0]}×{multiples[1]}"
        )
    if not is_two_four(mask, dtype):
        kept, of = (1, 2) if dtype == torch.float32 else (2, 4)
        raise InputError(
            f"mask: not {kept}:{of} {where}; allowed is at most {kept} active in each {of}"
        )


KERNEL = TwoFour()
