"""Whether bytes from the cache simulation make the CPU model's estimates better.

    python benchmarks/bench_simulated_bytes.py [r.jsonl] [--budget 120]

The records are those of `bench_crosscheck_cpu.py --records r.jsonl`, or timed now.
Every record of the three kernels whose traffic depends on the mask is simulated whole: its address
stream (`hwsim.caches.traces`), twice, through 32 KiB, 512 KiB and 32 MiB (`hwsim.caches.cache`);
what the second time misses in the first and in the second level is a term beside the model's. Each
weight is estimated from a fit to the others, in eight parts. Prints the mean error with and
without, and the difference record by record with its 95 % interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hwsim.caches.cache import CacheHierarchy
from hwsim.caches.traces import KernelTrace
from hwsim.calibration.cpu import relative_fit
from hwsim.calibration.measure_cpu import measure_cpu
from hwsim.cpu.costs import KERNEL_TERMS, terms
from hwsim.mask import Mask
from hwsim.measured.cpu_cases import CASES, UNSEEN, drawn_mask
from hwsim.measured.record import Measurement, read_measurements
from hwsim.measured.timing import UNSTEADY

KERNELS = ("tiled", "sampled", "csr")
LEVELS = (("L1", 64, 8), ("L2", 1024, 8), ("L3", 32768, 16))
PARTS = 8


def simulated_bytes(record: Measurement, mask: Mask) -> tuple[float, float]:
    """Bytes that a warm run fetches from beyond the first and beyond the second level."""
    turned = record.phase == "grad_input"
    walked = Mask(np.ascontiguousarray(mask.array.T), copy=False) if turned else mask
    trace = KernelTrace(record.kernel, walked, record.m)
    caches, before = CacheHierarchy(LEVELS), np.zeros(len(LEVELS))
    for _ in range(2):
        before = caches.misses()
        for addresses, is_store in trace:
            caches.access(addresses, is_store)
    near, middle, _ = (caches.misses() - before) * 64
    return float(near), float(middle)


def held_out_errors(counts: np.ndarray, seconds: np.ndarray, part: np.ndarray) -> np.ndarray:
    """|estimate / measurement − 1| of each record, from a fit to the other parts."""
    estimates = np.empty(len(seconds))
    for number in range(PARTS):
        ours = part == number
        estimates[ours] = counts[ours] @ relative_fit(counts[~ours], seconds[~ours])
    return np.abs(estimates / seconds - 1.0)


def compare(kernel: str, records: list[Measurement], masks: dict[str, Mask]) -> None:
    known = [
        [
            terms(kernel, r.phase, r.m, r.n, r.k, round(r.density * r.n * r.k))[term]
            for term in KERNEL_TERMS[kernel]
        ]
        for r in records
    ]
    simulated = [simulated_bytes(r, masks[r.mask_digest]) for r in records]
    seconds = np.array([r.min_s for r in records])
    digests = sorted({r.mask_digest for r in records})
    order = np.random.default_rng(0).permutation(len(digests))
    part_of = {digests[place]: number % PARTS for number, place in enumerate(order)}
    part = np.array([part_of[r.mask_digest] for r in records])
    without = held_out_errors(np.array(known), seconds, part)
    both = held_out_errors(np.hstack([known, simulated]), seconds, part)
    change = both - without
    margin = 1.96 * change.std(ddof=1) / np.sqrt(len(change))
    print(
        f"  {kernel:<8} n={len(records):<4} {without.mean():6.2%} without, {both.mean():6.2%} "
        f"with; change {change.mean():+.2%} ± {margin:.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="?", help="of bench_crosscheck_cpu.py")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds to time records for")
    options = parser.parse_args()
    if options.records is not None:
        records = read_measurements(options.records)
    else:
        rng = np.random.default_rng(0)
        records = measure_cpu(CASES + UNSEEN, budget_s=options.budget, rng=rng)
    masks = {}
    for case in CASES + UNSEEN:
        mask = drawn_mask(case.n_out, case.n_in, case.density, case.pattern, case.seed)
        masks[mask.digest] = mask
    steady = [
        r
        for r in records
        if r.m > 1 and r.mask_digest in masks and r.median_s <= UNSTEADY * r.min_s
    ]
    print("held-out time MAPE, without and with simulated bytes")
    for kernel in KERNELS:
        compare(kernel, [r for r in steady if r.kernel == kernel], masks)


if __name__ == "__main__":
    main()
