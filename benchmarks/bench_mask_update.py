"""An exact RigL update of BERT-base's 72 linears at 90 %, and what a masked step costs.

    python benchmarks/bench_mask_update.py [--others]

With --others, rigl-torch and sparsimony update the same layers by the same drop fraction, in
processes of their own. pip puts them into a folder that is deleted afterwards; where it cannot, the
reason is printed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from sparse_train import sparsify
from sparse_train.masking.bits import zero_where_not_

WIDTH, FEED_FORWARD, LAYERS = 768, 3072, 12
DROP = 0.3
OTHERS = {"rigl_torch": "rigl-torch==0.5.2", "sparsimony": "sparsimony==0.1.0"}


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


def seconds(
    call: Callable[[], object], rounds: int, before: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    """(by the clock on the wall, of all processors) of the fastest of `rounds` calls, each.

    `before` is called before each, and does not count.

    On a shared machine the wall's clock tells of others' work too.
    """
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        before()
        start = time.perf_counter(), time.process_time()
        call()
        taken = time.perf_counter() - start[0], time.process_time() - start[1]
        best = [min(one, other) for one, other in zip(best, taken, strict=True)]
    return best[0], best[1]


def update(rounds: int) -> tuple[float, float]:
    """Seconds of our update; each with a dense gradient, and moments to be zeroed."""
    model = nn.Sequential(*(Block() for _ in range(LAYERS)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    sparsifier = sparsify(model, optimizer, "rigl", 0.1, layers="all", update_interval=1,
                          distribution="uniform", drop_fraction=DROP)  # fmt: skip
    # Two sets of gradients in turn, so that every update changes every mask. They are set, so that
    # what they are for the inactive weights is known without a backward pass.
    sets = [[torch.randn_like(p) for p in model.parameters()] for _ in range(2)]

    def ready() -> None:
        for parameter, gradient in zip(model.parameters(), sets[sparsifier.steps % 2], strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()

    def one() -> None:
        assert sparsifier.step()

    ready()
    one()
    ours = seconds(one, rounds, ready)
    print(f"update of {len(sparsifier.layers)} linears, SGD with momentum: {_said(ours)}")
    return ours


def others(ours: tuple[float, float], rounds: int, threads: int) -> None:
    """The same update by other libraries, on the same machine in the same run."""
    for name, wanted in OTHERS.items():
        with tempfile.TemporaryDirectory() as folder:
            # Without what they depend on: torch is here, and nothing else is used.
            fetch = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            fetched = subprocess.run(
                [*fetch, "--target", folder, wanted], capture_output=True, text=True
            )
            if fetched.returncode:
                print(f"{wanted}: skipped, pip cannot fetch it: {_last(fetched.stderr)}")
                continue
            script = Path(__file__).with_name("_other_rigl.py")
            command = [sys.executable, script, name, folder, str(rounds), str(threads)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{wanted}: skipped, it does not run here: {_last(done.stderr)}")
                continue
            theirs = tuple(float(part) for part in done.stdout.split())
            times = " and ".join(f"{a / b:.1f}×" for a, b in zip(theirs, ours, strict=True))
            print(f"{wanted}: {_said(theirs)}; {times} ours")


def _said(taken: tuple[float, ...]) -> str:
    return f"{taken[0]:.3f} s, {taken[1]:.3f} s of processor time"


def _last(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "no message")


def masked_step(rounds: int, fused: bool) -> None:
    """What masks add to a step of two blocks under AdamW, over the same step without masks.

    The trainer's AdamW is fused. torch's default one takes the square root of whole tensors, which
    MKL does several times slower where they are zero: inactive weights cost time there that is
    neither ours nor to be had back.
    """
    batch = torch.randn(1024, WIDTH)
    model, optimizers = nn.Sequential(Block(), Block()), {}
    twin = nn.Sequential(Block(), Block())
    for name, network in (("dense", twin), ("masked", model)):
        optimizers[name] = torch.optim.AdamW(network.parameters(), fused=fused)
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

    # In pairs, by the wall's clock: of processor time, a good part is threads that wait.
    spent: dict[str, list[float]] = {"dense": [], "masked": []}
    for number in range(rounds):
        pair = [("dense", dense), ("masked", masked)]
        for name, call in pair if number % 2 else reversed(pair):
            start = time.perf_counter()
            call()
            spent[name].append(time.perf_counter() - start)
    ratios = [b / a - 1 for a, b in zip(spent["dense"], spent["masked"], strict=True)]
    # What a step does beside the dense one, alone: gradients and weights zeroed where inactive.
    alone = []
    for _ in range(rounds):
        step(model, optimizers["masked"])
        start = time.perf_counter()
        for layer in sparsifier.layers.values():
            assert layer.parameter.grad is not None
            zero_where_not_(layer.parameter.grad, layer.mask)
        sparsifier.step()
        alone.append(time.perf_counter() - start)
    low, middle, high = statistics.quantiles(ratios, n=4)
    best = {name: min(times) for name, times in spent.items()}
    print(
        f"step at 1,024 tokens, AdamW(fused={fused}): dense {best['dense']:.3f} s, masked "
        f"{best['masked']:.3f} s; over dense {middle:+.1%} (median of {rounds} pairs, "
        f"quartiles {low:+.1%}, {high:+.1%}), {best['masked'] / best['dense'] - 1:+.1%} at best; "
        f"its passes alone {statistics.median(alone) / statistics.median(spent['dense']):.1%}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--others", action="store_true", help="rigl-torch and sparsimony too")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ours = update(given.rounds)
    if given.others:
        others(ours, min(given.rounds, 2), given.threads)
    for fused in (True, False):
        masked_step(3 * given.rounds, fused)
