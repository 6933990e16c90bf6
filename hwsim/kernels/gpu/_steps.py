"""A transformer's training step with real 2:4 products: what the suite times end to end.

Encoder blocks alone, without embeddings and head: the part that masks act on, with its attention,
norms, activations and optimizer. Each masked weight is multiplied by its mask and packed in every
step, since its values change in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hwsim.errors import InputError
from hwsim.gpu_suite import STEP_KINDS, STEPS, Case
from hwsim.kernels.gpu._cases import DTYPES, mask_of
from hwsim.registry import unknown

TOKENS = {"bert-base": 512, "vit-large": 197}
_HEAD = 64


@dataclass(frozen=True)
class Packers:
    """How a masked weight (n, k) becomes what `linear` takes.

    Attributes:
        forward: weight → operand of linear(x, ·).
        both: weight → operands of linear(x, ·) and of linear(dy, ·), by one pass.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    both: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def cusparselt() -> Packers:
    """The library's compress for one direction, its fused prune and compress for both.

    Pruning keeps the two largest of each four in both directions: of a weight that is masked so
    already it keeps every active value.
    """
    from torch.sparse import SparseSemiStructuredTensorCUSPARSELT as Packed

    def both(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        packed: Any = Packed.prune_dense_static_sort(weight)
        return packed, packed.t()

    return Packers(Packed.from_dense, both)


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
        return nn.functional.linear(x, operand)

    @staticmethod
    def backward(ctx, dy):  # type: ignore[override]
        x, mask = ctx.rest
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


class Block(nn.Module):
    """A pre-norm encoder block; x (batch · tokens, width) → the same."""

    def __init__(self, width: int, tokens: int, linear: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.tokens, self.heads = tokens, width // _HEAD
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = linear(3 * width, width), linear(width, width)
        self.up, self.down = linear(4 * width, width), linear(width, 4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, width = x.shape
        split = self.qkv(self.norms[0](x)).view(-1, self.tokens, 3, self.heads, _HEAD)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (batch, heads, tokens, 64) each
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, width))
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))


def kind_of(case: Case) -> tuple[str, str]:
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


def encoder(case: Case, device: str, packers: Packers | None = None) -> nn.Module:
    """The blocks of a step's case: `m` rows, width `n`, `k` layers; dense layers are nn.Linear."""
    model, kind = kind_of(case)

    def linear(n: int, k: int) -> nn.Module:
        if kind == "dense":
            return nn.Linear(k, n, bias=False)
        g = torch.Generator(device).manual_seed(n + k)
        mask = mask_of(Case("2:4", "forward", 1, n, k), g, device)
        return MaskedLinear(n, k, mask, packers or cusparselt(), kind.startswith("transposable"))

    tokens = min(TOKENS[model], case.m)
    blocks = [Block(case.n, tokens, linear) for _ in range(case.k)]
    return nn.Sequential(*blocks).to(device=device, dtype=DTYPES[case.dtype])


def build_step(case: Case, device: str, packers: Packers | None = None) -> Callable[[], Any]:
    """A call that does one training step: forward, backward, AdamW."""
    made = encoder(case, device, packers)
    # Masks went to the weights' type with the model; as bool they are a quarter of the bytes.
    for module in made.modules():
        if isinstance(module, MaskedLinear):
            module.mask = module.mask.bool()
    x = torch.randn(case.m, case.n, device=device, dtype=DTYPES[case.dtype])
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-4, fused=device == "cuda" or None)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = made(x).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return step
