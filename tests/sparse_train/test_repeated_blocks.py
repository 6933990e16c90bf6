"""Equal blocks are observed once: what is written down equals the whole trace, op by op."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim import Mask, Workload
from sparse_train.weightless import weightless
from sparse_train.workload import workload


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class _Block(nn.Module):
    """As published decoders are written: grouped keys, rotation handed in, a gated MLP."""

    def __init__(self, width: int, index: int, hidden: int, plain: bool) -> None:
        super().__init__()
        self.layer_idx, self.heads, self.plain = index, 4, plain
        self.norm_1, self.norm_2 = _Norm(width), _Norm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], cache: None = None) -> tuple:
        batch, length, width = x.shape
        y = self.norm_1(x)
        q = self.q(y).view(batch, length, 4, -1).transpose(1, 2)
        k, v = self.kv(y).chunk(2, -1)
        k = k.view(batch, length, 2, -1).transpose(1, 2).repeat_interleave(2, 1)
        v = v.view(batch, length, 2, -1).transpose(1, 2).repeat_interleave(2, 1)
        q = q * turn[0] + q.flip(-1) * turn[1]
        if self.plain:
            y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, width))
        y = self.norm_2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), cache


class _Decoder(nn.Module):
    def __init__(
        self, layers: int = 5, width: int = 32, hidden: tuple[int, ...] = (48,),
        plain: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tokens = nn.Embedding(64, width)
        self.layers = nn.ModuleList(
            _Block(width, i, hidden[i % len(hidden)], plain) for i in range(layers)
        )
        self.norm = _Norm(width)
        self.head = nn.Linear(width, 64, bias=False)
        self.skip = None

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        size = x.shape[-1] // 4
        turn = x.new_ones(ids.shape[1], size), x.new_zeros(ids.shape[1], size)
        for i, layer in enumerate(self.layers):
            if i != self.skip:
                x, _ = layer(x, turn)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), ids.flatten())


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, batch_first=True), 4)


def _without_sums(step: Workload) -> Counter:
    """Signatures; sums of gradients by what they move, since who is called for them may differ."""
    return Counter(
        (op.phase, op.activation_bytes, op.dense_flops)
        if op.kind == "elementwise" and op.phase == "grad_input"
        else op.signature
        for op in step
    )


@pytest.fixture
def whole(monkeypatch) -> Callable[..., Workload]:
    """`workload` with every block observed."""

    def observed(*args: Any, **options: Any) -> Workload:
        with monkeypatch.context() as patch:
            module = importlib.import_module("sparse_train.workload")
            patch.setattr(module, "counted", lambda *_: contextlib.nullcontext())
            return workload(*args, **options)

    return observed


IDS = torch.zeros(2, 8, dtype=torch.long)


@pytest.mark.parametrize("dtype", [None, "amp-bf16", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: (_Decoder(), IDS),
        lambda: (_Decoder(hidden=(48, 64)), IDS),
        lambda: (_Decoder(plain=True), IDS),
        lambda: (_encoder(), torch.zeros(2, 8, 16)),
        lambda: (nn.Transformer(16, 2, 3, 4, 32), (torch.zeros(5, 2, 16), torch.zeros(6, 2, 16))),
    ],
)
def test_counted_blocks_equal_the_whole_trace(make, dtype, whole) -> None:
    model, batch = make()
    counted = workload(model, batch, dtype=dtype)
    full = whole(model, batch, dtype=dtype)
    assert _without_sums(counted) == _without_sums(full)
    assert counted.unknown == full.unknown
    # Which of two temporaries is freed first may differ.
    assert counted.peak_bytes == pytest.approx(full.peak_bytes, rel=0.05)


def test_a_block_that_is_left_out_is_not_counted(whole) -> None:
    model = _Decoder()
    model.skip = 3
    names = {op.name for op in workload(model, IDS)}
    assert "layers.4.up" in names
    assert "layers.3.up" not in {op.name for op in workload(model, IDS) if op.kind == "gemm"}
    assert _without_sums(workload(model, IDS)) == _without_sums(whole(model, IDS))


def test_masks_can_differ_from_layer_to_layer() -> None:
    rng = np.random.default_rng(0)
    masks = {f"layers.{i}.up": Mask(rng.random((48, 32)) < 0.1 * (i + 1)) for i in range(5)}
    step = workload(_Decoder(), IDS, masks)
    assert step.masks == masks


def test_blocks_are_left_as_they_were() -> None:
    model = _Decoder()
    workload(model, IDS)
    assert all("forward" not in layer.__dict__ for layer in model.layers)
    assert all(p.grad is None for p in model.parameters())


def test_hooks_of_a_block_are_called() -> None:
    model, called = _Decoder(), []
    for layer in model.layers:
        layer.register_forward_hook(lambda *_: called.append(1))
    workload(model, IDS)
    assert len(called) == len(model.layers)


def test_a_model_of_seventy_billion_weights_is_observed_without_them() -> None:
    with weightless():
        model = _Decoder(80, 8192, (28672,))
    step = workload(model, torch.zeros(1, 64, dtype=torch.long), dtype="bfloat16")
    assert len(step.layers) == 80 * 6 + 1
    assert sum(n * k for n, k in step.layers.values()) > 6e10
