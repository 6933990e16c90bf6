"""A whole training step of a BERT-like model on this machine: dense torch against sparse kernels.

    python benchmarks/bench_training_step.py [--blocks 2] [--tokens 1024] [--threads 1]

d = 768, FFN 3072, 12 heads, fused AdamW (the plain one takes square roots through MKL, fifteen
times slower where moments are zero); RigL at 90 % on all maskable layers, mask update every 100
steps. Dense, masked dense and sparse steps alternate. The update step (dense gradient, selection,
new packing) is timed apart and counted at one in a hundred. With one thread the clock is that of
the process, which other processes disturb least.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from hwsim import load_device
from sparse_train.compute.sparse_linear import SparseCompute
from sparse_train.sparsify import sparsify
from sparse_train.workload import workload

INTERVAL = 100


class Block(nn.Module):
    """One encoder block, post-norm as in BERT."""

    def __init__(self, d: int = 768, hidden: int = 3072, heads: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.output = nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.norm_attention, self.norm_ffn = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x):  # (batch, sequence, d)
        split = [
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        mixed = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        x = self.norm_attention(x + self.output(mixed))
        return self.norm_ffn(x + self.down(functional.gelu(self.up(x))))


class Run:
    """A model with all it needs for one step."""

    def __init__(self, blocks: int, tokens: int, *, sparse: bool, kernels: bool) -> None:
        torch.manual_seed(0)
        # The identity at the end is the output layer's place: every Linear before it is masked.
        self.model = nn.Sequential(*[Block() for _ in range(blocks)])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.x = torch.randn(tokens // 128, 128, 768)
        self.target = torch.randn_like(self.x)
        self.sparsifier = None
        if sparse:
            self.sparsifier = sparsify(
                self.model, self.optimizer, "rigl", 0.1, distribution="uniform",
                update_interval=INTERVAL, layers="all",
            )  # fmt: skip
            if kernels:
                SparseCompute(self.sparsifier)

    def step(self) -> float:
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        loss = functional.mse_loss(self.model(self.x), self.target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.sparsifier is not None:
            self.sparsifier.step()
        self.loss = loss.item()
        return clock() - start

    def update_step(self) -> float:
        """A step that updates the masks, and what the next one pays for new packings."""
        assert self.sparsifier is not None
        self.sparsifier.steps = INTERVAL - 1
        usual = self.step()
        return usual + max(0.0, self.step() - self.step())


def show_parts(run: Run, rounds: int) -> None:
    """What the kernels of a sparse step take, of the fastest of some steps."""
    from hwsim.kernels.cpu.tiled import PackedActivations, TiledMatrix

    spent: dict[str, float] = {}
    usual = {}

    def timed(name, function):
        def call(*arguments):
            start = time.process_time()
            result = function(*arguments)
            spent[name] = spent.get(name, 0.0) + time.process_time() - start
            return result

        return call

    names = ("repack", "take", "multiply", "sampled_product", "spread")
    for kind, name in (
        (PackedActivations, "of"),
        (PackedActivations, "rows"),
        *((TiledMatrix, n) for n in names),
    ):
        usual[kind, name] = vars(kind)[name]
        call = timed(name, getattr(kind, name))
        setattr(kind, name, staticmethod(call) if name == "of" else call)
    found = []
    for _ in range(rounds):
        spent.clear()
        found.append((run.step(), dict(spent)))
    for (kind, name), function in usual.items():
        setattr(kind, name, function)
    whole, parts = min(found, key=lambda pair: pair[0])
    shown = ", ".join(f"{name} {seconds / whole:.1%}" for name, seconds in parts.items())
    print(f"  parts of a sparse step of {whole * 1e3:.0f} ms: {shown}")


def compare_with_estimate(device, runs, dense, sparse_s: float) -> None:
    """The simulator's price of the same step beside the fastest one measured.

    Its constants are fitted to the fastest samples of each kernel.
    """
    run = runs["sparse kernels"]
    model = nn.Sequential(*[Block() for _ in run.model])
    ops = workload(model, run.x, optimizer="adamw")
    for name, step, measured in (
        ("dense torch", ops, float(np.min(dense))),
        ("sparse kernels", ops.with_masks(run.sparsifier.masks()), sparse_s),
    ):
        estimate = device.estimate(step)
        print(
            f"  {device.name}: {name} estimated {estimate.seconds * 1e3:.1f} ms, "
            f"{estimate.seconds / measured - 1:+.0%} of the fastest step's {measured * 1e3:.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", help="name or file of a CPU specification to compare with")
    parser.add_argument("--parts", action="store_true", help="what a sparse step's kernels take")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = (options.blocks, options.tokens)
    runs = {
        "dense torch": Run(*size, sparse=False, kernels=False),
        "masked dense torch": Run(*size, sparse=True, kernels=False),
        "sparse kernels": Run(*size, sparse=True, kernels=True),
    }
    for run in runs.values():
        run.step()
    taken = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            taken[name].append(run.step())
    losses = [runs[name].loss for name in ("masked dense torch", "sparse kernels")]
    updates = [runs["sparse kernels"].update_step() for _ in range(3)]
    print(f"{options.blocks} blocks, {options.tokens} tokens, {options.threads} threads, 90 %")
    dense = np.array(taken["dense torch"])
    for name, seconds in taken.items():
        low, median, high = np.percentile(dense / np.array(seconds), [25, 50, 75])
        print(
            f"  {name:<20} {np.median(seconds) * 1e3:8.1f} ms a step   "
            f"{median:.2f}× dense ({low:.2f} … {high:.2f})"
        )
    usual, update = np.median(taken["sparse kernels"]), np.median(updates)
    whole = usual + (update - usual) / INTERVAL
    print(f"  step with mask update {update * 1e3:.1f} ms; one in {INTERVAL}:")
    print(f"  sparse kernels, updates included: {np.median(dense) / whole:.2f}× dense torch")
    if options.device:
        least = float(np.min(taken["sparse kernels"]))
        compare_with_estimate(load_device(options.device), runs, dense, least)
    if options.parts:
        show_parts(runs["sparse kernels"], options.rounds)
    print(f"  last losses: masked dense {losses[0]:.6f}, sparse {losses[1]:.6f}")


if __name__ == "__main__":
    main()
