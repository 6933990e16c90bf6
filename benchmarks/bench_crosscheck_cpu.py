"""Fits the CPU model on this machine, then holds it against sizes it has not seen.

    python benchmarks/bench_crosscheck_cpu.py [--threads 1] [--write zen3.toml] [--records r.jsonl]

Prints, for the fitted and for the unseen sizes: the error of the time per kernel, of the speed-up
over dense, Kendall's τ of the speed-up, and how often the kernel predicted fastest is the fastest
or within 5 % of it. Times are the fastest samples: a busy machine disturbs medians.

The unseen sizes are `hwsim.measured.cpu_cases.UNSEEN`: shapes, densities, batches and kinds of
masks drawn from a seed that was set after the terms of the model had been chosen on other ones.
Both kinds are timed in turn, again and again for `--budget` seconds, so that the clock and the
neighbours of the machine are the same for both.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=240.0)
    parser.add_argument("--write", type=Path, help="where the specification goes")
    parser.add_argument("--records", type=Path, help="where the records go, JSON Lines")
    options = parser.parse_args()
    run(options)


def run(options: argparse.Namespace) -> None:
    import tempfile

    import numpy as np

    from hwsim import load_device
    from hwsim.calibration.cpu import fit_cpu, specification
    from hwsim.calibration.measure_cpu import measure_cpu
    from hwsim.measured.cpu_cases import CASES, UNSEEN
    from hwsim.measured.record import write_measurements
    from hwsim.measured.timing import clock_hz

    fitted = {(case.n_out, case.n_in) for case in CASES}
    assert not fitted & {(case.n_out, case.n_in) for case in UNSEEN}
    start = time.perf_counter()
    in_turn = [case for both in itertools.zip_longest(CASES, UNSEEN) for case in both if case]
    records = measure_cpu(
        in_turn, threads=options.threads, budget_s=options.budget, rng=np.random.default_rng(0)
    )
    print(f"{len(records)} records timed in {time.perf_counter() - start:.0f} s")
    seen = [r for r in records if (r.n, r.k) in fitted or r.kernel == "stream"]
    unseen = [r for r in records if (r.n, r.k) not in fitted and r.kernel != "stream"]
    path = options.write or Path(tempfile.mkdtemp()) / "cpu.toml"
    text = specification(fit_cpu(seen), seen, clock_hz=clock_hz())
    path.write_text(text, encoding="utf-8")
    if options.records:
        write_measurements(options.records, records)
    device = load_device(path)
    for title, some in (("fitted", seen), ("unseen", unseen)):
        show(title, some, device)


def show(title, records, device) -> None:
    import numpy as np
    from scipy.stats import kendalltau

    from hwsim.calibration.cpu import relative_errors
    from hwsim.measured.timing import UNSTEADY

    def estimate(record):
        return device.price_record(record).seconds

    steady = [r for r in records if r.median_s <= UNSTEADY * r.min_s]
    print(f"{title}: {len(records)} records; the {len(steady)} steady ones count")
    records = steady
    by_kernel = relative_errors(records, estimate)
    for kernel, errors in by_kernel.items():
        size = np.abs(errors)
        print(
            f"  {kernel:<15} n={len(size):<4} time MAPE {size.mean():6.1%}   "
            f"90 % within {np.percentile(size, 90):6.1%}   bias {np.median(errors):+6.1%}"
        )
    off = np.concatenate([*by_kernel.values()])
    print(f"  all: time MAPE {np.abs(off).mean():.1%}, median bias {np.median(off):+.1%}")
    groups: dict[tuple, dict[str, tuple[float, float]]] = {}
    for r in records:
        if r.phase != "update":
            group = groups.setdefault((r.phase, r.m, r.n, r.k, r.mask_digest), {})
            group[r.kernel] = (r.min_s, estimate(r))
    measured, predicted, right = [], [], 0
    groups = {key: group for key, group in groups.items() if len(group) > 1 and "dense" in group}
    for group in groups.values():
        for kernel, (truth, guess) in group.items():
            if kernel != "dense":
                measured.append(group["dense"][0] / truth)
                predicted.append(group["dense"][1] / guess)
        chosen = min(group, key=lambda name: group[name][1])
        right += group[chosen][0] <= 1.05 * min(t for t, _ in group.values())
    error = np.abs(np.array(predicted) / np.array(measured) - 1.0).mean()
    tau = kendalltau(measured, predicted).statistic
    print(f"  speed-up over dense: MAPE {error:.1%}, τ {tau:.3f}; fastest kernel chosen, or one ")
    print(f"  within 5 % of it, in {right} of {len(groups)} cases ({right / len(groups):.1%})")


if __name__ == "__main__":
    main()
