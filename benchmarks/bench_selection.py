"""Exact drop and grow of a mask, beside torch.topk in the same run.

    python benchmarks/bench_selection.py [--threads 2] [--rounds 9]

Prints milliseconds (median, quartiles, least) for one 3072×768 layer at 90 % and for the 72 linear
layers of BERT-base. Variants alternate within each round.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from hwsim.kernels.cpu.selection import drop_grow_mask, top_k_mask
from hwsim.kernels.cpu.threads import available_threads

BERT_BASE = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]  # one of its 12 blocks


def torch_drop_grow(weights, gradients, mask, n_drop):
    """The same update written with torch.topk; it breaks ties its own way."""
    score = weights.abs().masked_fill(~mask, -1.0).view(-1)
    kept = torch.zeros_like(mask).view(-1)
    kept[score.topk(int(mask.sum()) - n_drop, sorted=False).indices] = True
    growth = gradients.abs().view(-1).masked_fill(kept, -1.0)
    kept[growth.topk(n_drop, sorted=False).indices] = True
    return kept.view_as(mask)


def layer(rng, shape, density=0.1):
    weights = rng.standard_normal(shape).astype(np.float32)
    gradients = rng.standard_normal(shape).astype(np.float32)
    mask = top_k_mask(rng.random(shape).astype(np.float32), round(density * weights.size))
    return weights, gradients, mask, int(mask.sum()) * 3 // 10


def timed(variants, rounds):
    """Name → seconds per round; a warm-up call first."""
    for call in variants.values():
        call()
    taken = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    return taken


def show(title, taken):
    print(title)
    for name, seconds in taken.items():
        low, median, high = np.percentile(seconds, [25, 50, 75]) * 1e3
        least = min(seconds) * 1e3
        print(
            f"  {name:<34} {median:9.2f} ms   quartiles {low:.2f} … {high:.2f}, least {least:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)

    weights, gradients, mask, n_drop = layer(rng, (3072, 768))
    w, g, m = (torch.from_numpy(a) for a in (weights, gradients, mask))
    ours = drop_grow_mask(weights, gradients, mask, n_drop)
    assert np.array_equal(ours, torch_drop_grow(w, g, m, n_drop).numpy()), "results differ"
    nnz = int(mask.sum())
    variants = {
        "drop_grow_mask": lambda: drop_grow_mask(
            weights, gradients, mask, n_drop, threads=options.threads
        ),
        "drop_grow_mask, one thread": lambda: drop_grow_mask(
            weights, gradients, mask, n_drop, threads=1
        ),
        "drop and grow with torch.topk": lambda: torch_drop_grow(w, g, m, n_drop),
        "top_k_mask": lambda: top_k_mask(gradients, nnz, threads=options.threads),
        "torch.topk": lambda: g.view(-1).topk(nnz, sorted=False),
    }
    show(f"3072×768 at 90 %, {options.threads} threads", timed(variants, options.rounds))

    processor_s = []
    for _ in range(options.rounds):
        start = time.thread_time()
        variants["drop_grow_mask, one thread"]()
        processor_s.append(time.thread_time() - start)
    print(f"  drop_grow_mask, processor time of one thread: least {min(processor_s) * 1e3:.2f} ms")

    block = [layer(rng, shape) for shape in BERT_BASE]
    whole = {
        "drop_grow_mask, 72 layers": lambda: [
            drop_grow_mask(*one, threads=options.threads) for one in block * 12
        ]
    }
    show("all 72 linear layers of BERT-base", timed(whole, min(options.rounds, 5)))


if __name__ == "__main__":
    main()
