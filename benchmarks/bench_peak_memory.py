"""Peak memory of a training step beside what torch's profiler sees on this CPU.

    python -m benchmarks.bench_peak_memory

Five models with AdamW, the second step of a real run: the most bytes that the profiler has seen
allocated at once, with weights, moments and batch, against `peak_bytes` of a step observed with
`machine="cpu"`. The last column is a GPU's peak, with attention and dropout in one kernel each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse_train.workload import workload


class Causal(nn.Module):
    """Causal attention with dropout, and a loss over a vocabulary."""

    def __init__(self, width: int = 128, vocab: int = 1000, layers: int = 3) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width),
                           "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width),
                           "norm": nn.LayerNorm(width)})
            for _ in range(layers)
        )  # fmt: skip
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for block in self.blocks:
            q, k, v = (
                t.unflatten(-1, (4, -1)).transpose(1, 2)
                for t in block["qkv"](block["norm"](x)).chunk(3, -1)
            )
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
            x = x + block["out"](y.transpose(1, 2).flatten(2))
            x = x + F.dropout(block["down"](F.gelu(block["up"](x))), 0.1, self.training)
        return F.cross_entropy(self.head(x).flatten(0, 1), ids.flatten())


class Residual(nn.Module):
    """Convolutions with batch norm and shortcuts."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                          nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
            for _ in range(6)
        )  # fmt: skip
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((2, 3))).sum()


def models() -> Iterator[tuple[str, nn.Module, Tensor]]:
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(512, 512), nn.GELU())]
    yield "perceptron", nn.Sequential(*layers), torch.randn(1024, 512)
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    yield "encoder", encoder, torch.randn(16, 64, 128)
    yield "causal decoder", Causal(), torch.zeros(8, 128, dtype=torch.long)
    yield "residual convolutions", Residual(), torch.randn(16, 3, 32, 32)
    yield "recurrent", nn.LSTM(64, 128, 2, batch_first=True), torch.randn(16, 64, 64)


def profiled_peak(model: nn.Module, batch: Tensor) -> int:
    """Bytes: states and batch, and the most that a step's allocations hold at once."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)

    def step() -> None:
        out = model(batch)
        (out[0] if isinstance(out, tuple) else out).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    held = [*model.parameters(), *model.buffers(), batch]
    held += [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        step()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return sum(t.numel() * t.element_size() for t in held) + peak


def main() -> None:
    print(f"{'model':22} {'profiler':>10} {'ours':>10} {'ratio':>7} {'on a GPU':>10}")
    for name, model, batch in models():
        seen = profiled_peak(model, batch)
        ours = workload(model, batch, machine="cpu").peak_bytes
        gpu = workload(model, batch).peak_bytes
        print(f"{name:22} {seen / 1e6:7.1f} MB {ours / 1e6:7.1f} MB {ours / seen:7.3f} "
              f"{gpu / 1e6:7.1f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
