"""A transformer's training step with real 2:4 products: what the suite times end to end.

Encoder blocks alone, without embeddings and head: the part that masks act on, with its attention,
norms, activations and optimizer. Each masked weight is multiplied by its mask and packed in every
step, since its values change in every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hwsim.errors import InputError, unknown
from hwsim.kernels.gpu.suite.cases import ALLOWED, DTYPES, mask_of, probe
from hwsim.kernels.gpu.two_four import TwoFour, fused, search
from hwsim.measured.gpu_suite import STEP_KINDS, STEPS, GpuCase

TOKENS = {"bert-base": 512, "vit-large": 197}
_HEAD = 64


@dataclass(frozen=True)
class Packers:
    """How a masked weight (n, k) becomes what `linear` takes.

    Attributes:
        forward: weight → operand of linear(x, ·).
        both: weight → operands of linear(x, ·) and of linear(dy, ·).
        name: how, for the record.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    both: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    name: str = ""


def cusparselt(rows: int) -> tuple[Packers, ...]:
    """Ways to pack with cuSPARSELt, the fastest first: for both directions at once, or one by one.

    Each size's algorithm is searched once, for `rows` rows of activations, and kept.
    """
    algorithms: dict[torch.Size, int] = {}
    compressed = TwoFour().compressed

    def tuned(packed: Any) -> Any:
        if packed.shape not in algorithms:
            search(packed, rows)
            algorithms[packed.shape] = packed.alg_id_cusparselt
        packed.alg_id_cusparselt = algorithms[packed.shape]
        return packed

    def one(weight: torch.Tensor) -> Any:
        return tuned(compressed(weight))

    def at_once(weight: torch.Tensor) -> tuple[Any, Any]:
        packed = fused(weight)
        return tuned(packed), tuned(packed.t())

    def one_by_one(weight: torch.Tensor) -> tuple[Any, Any]:
        return one(weight), one(weight.t().contiguous())

    return Packers(one, at_once, "packed at once"), Packers(one, one_by_one, "packed one by one")


def working(packers: Sequence[Packers], case: GpuCase, device: str) -> Packers:
    """The first of some ways to pack whose products are right at every weight of a step's case.

    Raises:
        InputError: none is; its error is named.
    """
    transposable = kind_of(case)[1].startswith("transposable")
    allowed, error = ALLOWED[case.dtype], 0.0
    for way in packers:
        error = max(_error(way, n, k, transposable, case, device) for n, k in sizes(case.n))
        if error <= allowed:
            return way
    raise InputError(
        f"{case.kernel}: products of packed weights are off by {error:.2g}; "
        f"allowed is {allowed:.2g}"
    )


def sizes(width: int) -> tuple[tuple[int, int], ...]:
    """(n, k) of the weights of a block: query, key and value; out; up; down."""
    return (3 * width, width), (width, width), (4 * width, width), (width, 4 * width)


def _error(way: Packers, n: int, k: int, transposable: bool, case: GpuCase, device: str) -> float:
    """Relative error of a packed weight's products; infinite where it cannot be packed."""
    g = torch.Generator(device).manual_seed(n + k)
    weight = torch.randn(n, k, generator=g, device=device, dtype=DTYPES[case.dtype])
    masked = weight * mask_of(GpuCase("2:4", "forward", 1, n, k), g, device)
    expected, products = probe(masked, transposable)
    try:
        packed = way.both(masked) if transposable else (way.forward(masked), None)
        found = products(*packed).double()
    except RuntimeError:
        return math.inf
    exact = expected().double()
    error = float((found - exact).norm() / exact.norm())
    return error if error == error else math.inf


class _Product(torch.autograd.Function):
    """y = x·(W∘mask)ᵀ; 2:4 forward, 2:4 grad_input where the mask is transposable."""

    @staticmethod
    def forward(ctx, x, weight, mask, packers, transposable):  # type: ignore[override]
        masked = weight * mask
        if transposable:
            operand, turned = packers.both(masked)
        else:
            operand, turned = packers.forward(masked), masked.t()
        ctx.turned, ctx.rest = turned, (x, mask)
        return nn.functional.linear(x.contiguous(), operand)

    @staticmethod
    def backward(ctx, dy):  # type: ignore[override]
        x, mask = ctx.rest
        dy = dy.contiguous()  # the library would read other strides wrongly
        return nn.functional.linear(dy, ctx.turned), dy.t() @ x * mask, None, None, None


class MaskedLinear(nn.Module):
    """A linear layer without bias under a mask that stays; x (m, k) → (m, n)."""

    def __init__(self, n: int, k: int, mask: torch.Tensor, packers: Packers, transposable: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, k) * k**-0.5)
        self.register_buffer("mask", mask)
        self.packers, self.transposable = packers, transposable

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Product.apply(x, self.weight, self.mask, self.packers, self.transposable)


class EncoderBlock(nn.Module):
    """A pre-norm encoder block; x (batch · tokens, width) → the same."""

    def __init__(self, width: int, tokens: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.tokens, self.heads = tokens, width // _HEAD
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out, self.up, self.down = (linear(n, k) for n, k in sizes(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, width = x.shape
        split = self.qkv(self.norms[0](x)).view(-1, self.tokens, 3, self.heads, _HEAD)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (batch, heads, tokens, 64) each
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, width))
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))


def kind_of(case: GpuCase) -> tuple[str, str]:
    """(model, kind) of a step's case.

    Raises:
        InputError: a model or kind that the suite does not have.
    """
    model, _, kind = case.kernel.partition(" ")
    if model not in STEPS:
        raise InputError(unknown("model of a step", model, tuple(STEPS)))
    if kind not in STEP_KINDS:
        raise InputError(unknown("kind of a step", kind, STEP_KINDS))
    return model, kind


def encoder(case: GpuCase, device: str, packers: Packers | None = None) -> nn.Module:
    """The blocks of a step's case: `m` rows, width `n`, `k` layers; dense layers are nn.Linear.

    Raises:
        InputError: an unknown model or kind; masked layers without packers.
    """
    model, kind = kind_of(case)
    if packers is None and kind != "dense":
        raise InputError(f"{case.kernel}: packers is None; allowed is how its weights are packed")

    def linear(n: int, k: int) -> nn.Module:
        if kind == "dense":
            return nn.Linear(k, n, bias=False)
        g = torch.Generator(device).manual_seed(n + k)
        mask = mask_of(GpuCase("2:4", "forward", 1, n, k), g, device)
        assert packers is not None
        return MaskedLinear(n, k, mask, packers, kind.startswith("transposable"))

    tokens = min(TOKENS[model], case.m)
    blocks = [EncoderBlock(case.n, tokens, linear) for _ in range(case.k)]
    return nn.Sequential(*blocks).to(device=device, dtype=DTYPES[case.dtype])


def build_step(case: GpuCase, device: str, packers: Packers | None = None) -> Callable[[], Any]:
    """A call that does one training step: forward, backward, AdamW."""
    made = encoder(case, device, packers)
    x = torch.randn(case.m, case.n, device=device, dtype=DTYPES[case.dtype])
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-4, fused=device == "cuda" or None)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = made(x).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return step
