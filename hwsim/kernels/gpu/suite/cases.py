"""Operands and calls of the suite's cases: what `gpu_suite.Case` means in torch.

Every case comes with the product that it must equal, so that a kernel that is fast and wrong gives
no record. Triton's kernels also run on the CPU under the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from hwsim.errors import InputError, unknown
from hwsim.kernels.gpu import GPU_KERNELS
from hwsim.kernels.gpu.base import GpuKernel, PackedWeight
from hwsim.kernels.gpu.two_four import TwoFour, fused, search
from hwsim.measured.gpu_suite import V_N_M, GpuCase

DTYPES = {
    "bfloat16": torch.bfloat16, "float16": torch.float16, "tfloat32": torch.float32,
    "float32": torch.float32,
}  # fmt: skip
# Relative error of a whole result, in the Frobenius norm: some units of the operands' roundoff.
ALLOWED = {"bfloat16": 2e-2, "float16": 3e-3, "tfloat32": 5e-3, "float32": 1e-5}
PACKS = ("library pack", "fused pack")
MODULES = {"2:4": "two_four", "2:4 cutlass": "two_four", "csr": "csr", "gather": "gather",
           "block": "block", "v_n_m 64": "v_n_m", "v_n_m 128": "v_n_m"}  # fmt: skip
# Kernels written in Triton, by the module they are in.
TRITON = ("csr", "gather", "block", "v_n_m")
_BLOCK = 64
_PROBE_ROWS = 64
SEARCHED, DEFAULT = "algorithm searched", "default algorithm"


@dataclass(frozen=True)
class Built:
    """A case's call, and the product it must equal.

    Attributes:
        call: what is timed.
        expected: the product, computed when asked.
        laid_out: from what `call` returns to the layout of `expected`; not timed.
        note: how the library was told to run it, for the record.
    """

    call: Callable[[], Any]
    expected: Callable[[], torch.Tensor]
    laid_out: Callable[[Any], torch.Tensor] = lambda found: found
    note: str = ""


def build(case: GpuCase, device: str, seed: int = 0) -> Built:
    """Operands on `device`, the weight packed.

    Raises:
        InputError: a kernel, dtype or size that cannot be built; the kernel's own errors.
    """
    if case.dtype not in DTYPES:
        raise InputError(unknown("dtype", case.dtype, tuple(DTYPES)))
    g = torch.Generator(device).manual_seed(seed)
    dtype = DTYPES[case.dtype]
    weight = torch.randn(case.n, case.k, generator=g, device=device, dtype=dtype)
    if case.kernel in PACKS:
        return _packing(case, weight, g)
    x = torch.randn(case.m, case.k, generator=g, device=device, dtype=dtype)
    dy = torch.randn(case.m, case.n, generator=g, device=device, dtype=dtype)
    if case.kernel == "dense":
        mask = torch.ones_like(weight, dtype=torch.bool)
        return Built(partial(_dense, case.phase, x, dy, weight), _expected(case, x, dy, weight))
    mask, kernel = mask_of(case, g, device), kernel_of(case.kernel)
    if case.packing:
        if not isinstance(kernel, TwoFour) or case.phase != "forward":
            raise InputError(f"{case.kernel} {case.phase}: packing is timed for 2:4 forward only")
        return _with_packing(case, kernel, x, weight * mask)
    packed = kernel.pack(weight, mask)
    gradient = case.phase == "grad_weight"
    operand = packed.transposed if case.phase == "grad_input" else packed.values
    note = _searched(operand, case.m) if case.kernel == "2:4" and not gradient else ""
    return Built(
        lambda: _product(case.phase, kernel, x, dy, packed),
        _expected(case, x, dy, weight * mask, mask if gradient else None),
        (lambda found: kernel.unpack(found, packed)) if gradient else lambda found: found,
        note,
    )


def kernel_of(name: str) -> GpuKernel:
    """The kernel behind a case's name.

    Raises:
        InputError: an unknown name; the valid ones are listed.
    """
    if name not in MODULES:
        raise InputError(unknown("kernel of a case", name, ("dense", *MODULES, *PACKS)))
    kernel = GPU_KERNELS.get(MODULES[name])
    return type(kernel)("cutlass") if name == "2:4 cutlass" else kernel


def mask_of(case: GpuCase, g: torch.Generator, device: str) -> torch.Tensor:
    """A random mask (n, k) that the case's kernel takes, near its density."""
    n, k = case.n, case.k
    if case.kernel.startswith("2:4"):
        # Transposable: each 4×4 tile is one of the four turns of two diagonals; in tf32, which
        # keeps one of two, each 2×2 tile is one of two turns of one.
        of = 2 if case.dtype == "tfloat32" else 4
        turns = torch.randint(0, of, (n // of, k // of), generator=g, device=device)
        turns = turns.repeat_interleave(of, 0).repeat_interleave(of, 1)
        rows = torch.arange(turns.shape[0], device=device)[:, None]
        columns = torch.arange(turns.shape[1], device=device)
        return (rows + columns + turns) % of < of // 2
    if case.kernel == "block":
        tiles = torch.rand(-(-n // _BLOCK), -(-k // _BLOCK), generator=g, device=device)
        tiles = tiles < case.density
        return tiles.repeat_interleave(_BLOCK, 0).repeat_interleave(_BLOCK, 1)[:n, :k].contiguous()
    if case.kernel in V_N_M:
        return _v_n_m_mask(case, g, device)
    scores = torch.rand(n, k, generator=g, device=device)
    if case.kernel == "gather":
        fan_in = max(1, round(case.density * k))
        mask = torch.zeros(n, k, dtype=torch.bool, device=device)
        return mask.scatter_(1, scores.topk(fan_in, dim=1).indices, True)
    return scores < case.density


def _v_n_m_mask(case: GpuCase, g: torch.Generator, device: str) -> torch.Tensor:
    """Four random columns of each V × M block, two of them in each row; the density is 2/M."""
    v, m = int(case.kernel.rpartition(" ")[2]), max(8, round(2 / case.density))
    blocks, groups = -(-case.n // v), -(-case.k // m)
    columns = torch.rand(blocks, groups, m, generator=g, device=device).topk(4, dim=2).indices
    columns = columns.repeat_interleave(v, 0)
    chosen = torch.rand(columns.shape, generator=g, device=device).topk(2, dim=2).indices
    mask = torch.zeros(blocks * v, groups, m, dtype=torch.bool, device=device)
    mask.scatter_(2, columns.gather(2, chosen), True)
    return mask.view(blocks * v, groups * m)[: case.n, : case.k].contiguous()


def error_of(built: Built) -> float:
    """Relative error of one call, ‖found − expected‖ / ‖expected‖."""
    found = built.laid_out(built.call())
    expected = built.expected().double()
    size = float(expected.norm())
    return (
        float((found.double() - expected).norm()) / size if size else float(found.double().norm())
    )


def _dense(phase: str, x: torch.Tensor, dy: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if phase == "forward":
        return x @ weight.t()
    return dy @ weight if phase == "grad_input" else dy.t() @ x


def _product(
    phase: str, kernel: GpuKernel, x: torch.Tensor, dy: torch.Tensor, packed: PackedWeight
) -> torch.Tensor:
    if phase == "forward":
        return kernel.forward(x, packed)
    if phase == "grad_input":
        return kernel.grad_input(dy, packed)
    return kernel.grad_weight(dy, x, packed)


def _expected(
    case: GpuCase, x: torch.Tensor, dy: torch.Tensor, weight: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> Callable[[], torch.Tensor]:  # fmt: skip
    """The product in float32, never tf32, on the operands as they are."""

    def product() -> torch.Tensor:
        left, right, values = x.float(), dy.float(), weight.float()
        matmul = torch.backends.cuda.matmul
        before, matmul.allow_tf32 = matmul.allow_tf32, False
        try:
            exact = _dense(case.phase, left, right, values)
        finally:
            matmul.allow_tf32 = before
        return exact if mask is None else exact * mask

    return product


def _searched(packed: Any, rows: int) -> str:
    return SEARCHED if search(packed, rows) else DEFAULT


def _with_packing(case: GpuCase, kernel: TwoFour, x: torch.Tensor, masked: torch.Tensor) -> Built:
    """The weight packed and multiplied in every call; the algorithm is searched once."""
    first = kernel.compressed(masked)
    note = _searched(first, case.m)
    algorithm = first.alg_id_cusparselt
    return Built(
        lambda: torch.nn.functional.linear(x, kernel.compressed(masked, algorithm)),
        _expected(case, x, x, masked),
        note=note,
    )


def _packing(case: GpuCase, weight: torch.Tensor, g: torch.Generator) -> Built:
    """One weight packed as its values change: the library's compress, or pruned and packed.

    The weight is masked already, so that what packing must keep is known: its products with a few
    rows are checked, in both directions where it packs for both.
    """
    if weight.device.type != "cuda":
        raise InputError(f"{case.kernel}: device is {weight.device}; allowed is cuda")
    masked = weight * mask_of(GpuCase("2:4", "forward", 1, case.n, case.k), g, "cuda")
    both = case.kernel == "fused pack"
    pack = fused if both else TwoFour().compressed
    expected, products = probe(masked, both)
    return Built(
        lambda: pack(masked),
        expected,
        lambda packed: products(packed, packed.t() if both else None),
    )


def probe(
    masked: torch.Tensor, both: bool
) -> tuple[Callable[[], torch.Tensor], Callable[..., torch.Tensor]]:
    """How a packed weight is checked: its products with a few rows, as they must be.

    Args:
        masked: the weight (n, k) that was packed.
        both: whether it is packed for grad_input too.

    Returns:
        The right products, and those of two operands of `linear`, the second for grad_input.
    """
    n, k = masked.shape
    x = torch.randn(_PROBE_ROWS, k, dtype=masked.dtype, device=masked.device)
    dy = torch.randn(_PROBE_ROWS, n, dtype=masked.dtype, device=masked.device)

    def products(weight: Any, turned: Any) -> torch.Tensor:
        found = torch.nn.functional.linear(x, weight).flatten()
        if not both:
            return found
        return torch.cat([found, torch.nn.functional.linear(dy, turned).flatten()])

    return lambda: products(masked, masked.t()), products
