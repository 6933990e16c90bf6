"""A linear layer of constant fan-in that is never held as a matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.checks import check_number
from hwsim.masks.condensed import CondensedMask
from sparse_train.compute import _condensed_kernels as kernels

_NONE = np.empty((0, 0), np.float32)


class CondensedLinear(nn.Module):
    """y = x·Wᵀ + b with k active weights in each row of W, kept as values and their inputs.

    What training needs beside values and their moments is 2 or 4 bytes a weight for its input.
    Neither W nor its gradient nor the scores of all outputs are ever there at once.

    Args:
        n_in, n_out: sizes of W.
        fan_in: k.
        bias: where all biases start.

    Attributes:
        values: parameter (n_out, k); starts uniform in ±1/√k.
        bias: parameter (n_out,).
        inputs: buffer (n_out, k), int16 or int32: the input of each weight; starts random.
        seen: (x, labels) of the last training step: growth looks at its gradient.

    Source: Lasby et al. 2023, section 3.3 (the condensed form); Ullah et al. 2024, "Navigating
    Extremes: Dynamic Sparsity in Large Output Spaces", section 3 (an output layer of this form).
    """

    def __init__(self, n_in: int, n_out: int, fan_in: int, *, bias: float = 0.0) -> None:
        super().__init__()
        check_number("fan_in", fan_in, least=1, most=n_in)
        self.n_in, self.n_out, self.fan_in = n_in, n_out, fan_in
        bound = 1 / math.sqrt(fan_in)
        self.values = nn.Parameter(torch.empty(n_out, fan_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.full((n_out,), bias))
        kind = torch.int16 if n_in <= torch.iinfo(torch.int16).max else torch.int32
        self.register_buffer("inputs", torch.empty(n_out, fan_in, dtype=kind))
        seed = np.uint64(torch.randint(2**62, (1,)).item())
        kernels.random_inputs(self.inputs.numpy(), n_in, seed)
        self.seen: tuple[Tensor, Tensor] | None = None

    @property
    def mask(self) -> CondensedMask:
        """Which weights are active."""
        return CondensedMask(self.inputs.numpy(), self.n_in)

    @property
    def needed_bytes(self) -> int:
        """Of values, two moments, biases with theirs, and inputs: what AdamW cannot do without."""
        floats = self.values.numel() + self.bias.numel()
        return 3 * 4 * floats + self.inputs.numel() * self.inputs.element_size()

    def forward(self, x: Tensor) -> Tensor:
        """Scores (batch, n_out) of all outputs, without gradient: for few outputs or examples."""
        weights, inputs = self.values.detach(), self.inputs.long()
        return torch.stack([(row[inputs] * weights).sum(1) for row in x.detach()]) + self.bias

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """One-versus-all binary cross-entropy, summed over outputs, mean over the batch.

        Args:
            x: (batch, n_in) float32.
            labels: (batch, most) int64, numbers of the right outputs, n_out where there are fewer.
        """
        if self.training:
            self.seen = x.detach(), labels
        wanted = torch.is_grad_enabled()
        return _OneVersusAll.apply(x, self.values, self.bias, self.inputs, labels, wanted)

    @torch.no_grad()
    def best(self, x: Tensor, k: int) -> Tensor:
        """(batch, k): the outputs with the highest scores, highest first."""
        best = torch.empty(len(x), k, dtype=torch.long)
        kernels.best_outputs(
            self.values.detach().numpy(), self.inputs.numpy(), self.bias.detach().numpy(),
            columns(x), best.numpy(),
        )  # fmt: skip
        return best


class _OneVersusAll(torch.autograd.Function):
    """Loss and gradients from one pass over the outputs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor, inputs: Tensor, labels: Tensor,
        wanted: bool,
    ) -> Tensor:  # fmt: skip
        turned = columns(x)
        d_values = torch.empty_like(values) if wanted else torch.empty(0, 0)
        d_bias = torch.empty_like(bias) if wanted else torch.empty(0)
        d_x = np.zeros_like(turned) if wanted else _NONE
        loss = kernels.one_versus_all(
            values.detach().numpy(), inputs.numpy(), bias.detach().numpy(), turned,
            *by_output(labels, len(values)), d_values.numpy(), d_bias.numpy(), d_x,
        )  # fmt: skip
        if wanted:
            ctx.gradients = torch.from_numpy(d_x).t().contiguous(), d_values, d_bias
        return x.new_tensor(loss)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        # In place, and not kept here: a second copy would be as large as the weights.
        gradients = [gradient.mul_(outer[0]) for gradient in ctx.gradients]
        del ctx.gradients
        return (*gradients, None, None, None)


def columns(x: Tensor) -> np.ndarray:
    """(n_in, batch) of (batch, n_in)."""
    return np.ascontiguousarray(x.detach().numpy().T)


def by_output(labels: Tensor, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, examples) of padded labels (batch, most), ordered by output, each pair once."""
    array = labels.numpy()
    examples, places = np.nonzero(array < n_out)
    pairs = np.unique(np.stack([array[examples, places], examples]), axis=1)
    return np.ascontiguousarray(pairs[0]), np.ascontiguousarray(pairs[1])
