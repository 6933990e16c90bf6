"""Equal work gives equal bits: after fork and spawn, under any hash seed, on one and four threads.

Training on more threads sums in another order, which torch says; what is held here on 1 and 4 is
what this project computes: masks, selections, simulated caches and prices.
"""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HASH_SEEDS = ("0", "1", "4711")


def work(threads: int) -> dict[str, str]:
    """Digests of what the project's parts make of fixed input."""
    import numpy as np
    import torch

    from hwsim import device_names, gemm, load_device
    from hwsim.kernels.cpu.selection import drop_grow_mask, top_k_mask
    from hwsim.mask import Mask
    from sparse_train import sparsify, workload
    from sparse_train.algorithms import ALGORITHMS
    from sparse_train.patterns import projection

    rng = np.random.default_rng(7)
    scores, other = (rng.integers(-9, 9, (300, 2000)).astype(np.float32) for _ in range(2))
    found = {
        "top_k": top_k_mask(scores, 60_000, threads=threads).tobytes(),
        "drop_grow": drop_grow_mask(scores, other, scores > 0, 9_000, threads=threads).tobytes(),
    }
    for text in ("unstructured", "fan_in", "2:4", "block:8,8", "group:8,2", "transposable 2:4"):
        half = scores[:64, :64]
        found[text] = projection(text).project(abs(half), half.size // 2).tobytes()
    mask = Mask(projection("unstructured").project(abs(scores[:96, :128]), 3_000))
    torch.set_num_threads(threads)
    for name in device_names():
        price = load_device(name).estimate(gemm(64, 96, 128, mask))
        found[name] = repr(price).encode()
    torch.set_num_threads(1)
    for name in ("set", "rigl", "snfs", "deep_r", "nest"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 6)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        sparsifier = sparsify(model, optimizer, ALGORITHMS.get(name)(), 0.3, layers="all",
                              update_interval=2, total_steps=12)  # fmt: skip
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.randn(4, 12)).square().mean().backward()
            optimizer.step()
            sparsifier.step()
        weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
        step = workload(model, torch.randn(4, 12), sparsifier.masks())
        found[name] = weights + repr((step.flops, step.bytes)).encode()
    return {name: hashlib.sha256(value).hexdigest() for name, value in found.items()}


def _sent(threads, pipe):
    pipe.send(work(threads))


def elsewhere(way: str, threads: int) -> dict[str, str]:
    """The same in a child process, of this one or made anew."""
    context = multiprocessing.get_context(way)
    mine, theirs = context.Pipe()
    child = context.Process(target=_sent, args=(threads, theirs))
    child.start()
    theirs.close()
    try:
        assert mine.poll(120), f"{way}: nothing came back"
        return mine.recv()
    finally:
        child.kill()
        child.join()


@pytest.fixture(scope="module")
def here():
    return work(1)


def test_the_same_again_and_on_four_threads(here):
    assert work(1) == here
    assert work(4) == here


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    "way", [w for w in ("fork", "spawn") if w in multiprocessing.get_all_start_methods()]
)
def test_the_same_in_a_child(here, way, threads):
    assert elsewhere(way, threads) == here


@pytest.mark.slow
@pytest.mark.parametrize("seed", HASH_SEEDS)
def test_the_same_under_any_hash_seed(here, seed):
    code = "import json; from tests.test_everywhere_equal import work; print(json.dumps(work(1)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": seed}, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == here
