"""An exact RigL update of BERT-base's 72 linears at 90 %, and what a masked step costs.

python benchmarks/bench_mask_update.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from sparse_train import sparsify

WIDTH, FEED_FORWARD, LAYERS = 768, 3072, 12


class Block(nn.Module):
    """The six linears of a BERT layer, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, FEED_FORWARD), nn.Linear(FEED_FORWARD, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear in self.attention:
            x = linear(x)
        return self.down(self.up(x).relu())


def seconds(call: Callable[[], object], rounds: int) -> float:
    """The fastest of `rounds` calls."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def update(rounds: int) -> None:
    model = nn.Sequential(*(Block() for _ in range(LAYERS)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    sparsifier = sparsify(model, optimizer, "rigl", 0.1, layers="all", update_interval=1)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()

    layers = sparsifier.layers.items()
    # Two sets of gradients in turn, so that every update changes every mask.
    sets = [{name: torch.randn_like(layer.parameter) for name, layer in layers} for _ in range(2)]

    def one() -> None:
        sparsifier._dense.now.update(sets[sparsifier.steps % 2])
        sparsifier._stepped = True
        assert sparsifier.step()

    one()
    print(f"update of {len(sparsifier.layers)} linears, SGD with momentum: "
          f"{seconds(one, rounds):.3f} s")  # fmt: skip


def masked_step(rounds: int) -> None:
    batch = torch.randn(1024, WIDTH)
    model, optimizers = nn.Sequential(Block(), Block()), {}
    twin = nn.Sequential(Block(), Block())
    for name, network in (("dense", twin), ("masked", model)):
        optimizers[name] = torch.optim.AdamW(network.parameters())
    sparsifier = sparsify(model, optimizers["masked"], "rigl", 0.1, layers="all")

    def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()

    def masked() -> None:
        step(model, optimizers["masked"])
        sparsifier.step()

    def dense() -> None:
        step(twin, optimizers["dense"])

    # Processor time: on a shared machine the clock on the wall tells of others' work.
    spent = {"dense": float("inf"), "masked": float("inf")}
    for _ in range(rounds):
        for name, call in (("dense", dense), ("masked", masked)):
            start = time.process_time()
            call()
            spent[name] = min(spent[name], time.process_time() - start)
    share = spent["masked"] / spent["dense"] - 1
    print(
        f"step at 1,024 tokens, processor time: dense {spent['dense']:.3f} s, "
        f"masked {spent['masked']:.3f} s, {share:+.1%}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    update(given.rounds)
    masked_step(given.rounds)
