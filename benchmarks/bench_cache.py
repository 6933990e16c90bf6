"""Speed of the cache simulation on one core, in million accesses a second of processor time.

    python benchmarks/bench_cache.py [--accesses 8388608] [--rounds 5] [--pycachesim]

Three levels: 32 KiB, 1 MiB, 32 MiB (64×8, 2048×8, 32768×16 lines of 64 bytes), LRU. Loads of 8-
or 4-byte elements; traces are made beforehand. The geometric mean is over the six traces of the
first block; the others are shown beside it. `--pycachesim` runs that tool on shorter traces in
the same rounds and compares all counts; it is AGPL and no dependency of this project, so it gets an
environment of its own:

    python -m venv cachesim && cachesim/bin/pip install pycachesim numba
    PYTHONPATH=. cachesim/bin/python benchmarks/bench_cache.py --pycachesim
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from hwsim.caches.cache import ZEN4_LEVELS, simulate


def traces(n: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    steps = np.arange(n)

    def random(span):
        return rng.integers(0, span // 4, n) * 4

    main = {
        "sequential, 8 B": steps * 8,
        "strided 64 B over 512 KiB": steps * 64 % (512 << 10),
        "strided 4 KiB over 128 KiB": steps * 4096 % (128 << 10),
        "random in 16 KiB": random(16 << 10),
        "random in 4 MiB": random(4 << 20),
        "random in 64 MiB": random(64 << 20),
    }
    extra = {
        "strided 64 B over 64 MiB": steps * 64 % (64 << 20),
        "strided 4 KiB over 64 MiB": steps * 4096 % (64 << 20),
    }
    return main, extra


def pycachesim_counts(accesses: list) -> list[tuple[int, int]]:
    """Hits and misses per level; accesses as that tool takes them: (loads, stores) tuples."""
    from cachesim import Cache, CacheSimulator, MainMemory

    below, caches = None, []
    for name, sets, ways in reversed(ZEN4_LEVELS):
        cache = Cache(name, sets, ways, 64, "LRU", store_to=below, load_from=below)
        caches.append(cache)
        below = cache
    memory = MainMemory()
    memory.load_to(caches[0])
    memory.store_from(caches[0])
    simulator = CacheSimulator(caches[-1], memory)
    simulator.loadstore(accesses, length=1)
    return [(s["HIT_count"], s["MISS_count"]) for s in list(simulator.stats())[:3]]


def fastest(call, rounds: int) -> float:
    call()
    seconds = []
    for _ in range(rounds):
        start = time.thread_time()
        call()
        seconds.append(time.thread_time() - start)
    return min(seconds)


def mean(rates: list[float]) -> float:
    return math.exp(sum(math.log(rate) for rate in rates) / len(rates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accesses", type=int, default=1 << 23)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pycachesim", action="store_true", help="hold it beside pycachesim")
    options = parser.parse_args()
    counted, extra = traces(options.accesses)
    rates, ratios = [], []
    for name, addresses in {**counted, **extra}.items():
        rate = addresses.size / fastest(lambda a=addresses: simulate(a), options.rounds) / 1e6
        line = f"  {name:<28} {rate:8.1f} M accesses/s"
        if name in counted:
            rates.append(rate)
        if options.pycachesim:
            short = addresses[: 1 << 20]
            ours = [(c.hits, c.misses) for c in simulate(short).levels]
            accesses = [((address,), None) for address in short.tolist()]
            assert pycachesim_counts(accesses) == ours, f"{name}: counts differ"
            other = short.size / fastest(lambda a=accesses: pycachesim_counts(a), 3) / 1e6
            line += f"   pycachesim {other:6.1f}   ratio {rate / other:5.1f}"
            if name in counted:
                ratios.append(rate / other)
        print(line)
    print(f"geometric mean of the first six: {mean(rates):.1f} M accesses/s", end="")
    print(f", {mean(ratios):.1f} × pycachesim" if ratios else "")


if __name__ == "__main__":
    main()
