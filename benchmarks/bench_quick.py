"""What a check of a few seconds is worth: `nettime calibrate cpu --quick` against a full one.

    python -m benchmarks.bench_quick [--budget 90] [--base zen3 zen4] [--threads 1]

Times this machine twice: the cases of the quick check for its few seconds, and the cases of a full
calibration for `--budget` seconds. Each base device, scaled by the quick check alone, is held
against the full calibration's records of layers that the quick check did not time. Printed are the
mean error per kernel of the device as it is, of the scaled one, and of a full fit to the other half
of the layers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    from hwsim import load_device
    from hwsim.calibration.cpu import error_rows, fit_cpu, relative_errors, usable
    from hwsim.calibration.measure_cpu import measure_cpu
    from hwsim.calibration.quick import QUICK_CASES, QUICK_S, scaled_text, scaling
    from hwsim.measured.cpu_cases import CASES
    from hwsim.measured.timing import UNSTEADY, clock_hz, processor

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=90.0)
    parser.add_argument("--base", nargs="+", default=["zen3", "zen4"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    quick = measure_cpu(QUICK_CASES, threads=options.threads, budget_s=QUICK_S, rng=rng)
    full, _ = usable(measure_cpu(CASES, threads=options.threads, budget_s=options.budget, rng=rng))
    timed = {(case.n_out, case.n_in) for case in QUICK_CASES}
    held_out = [
        r for r in full if (r.n, r.k) not in timed and r.median_s <= UNSTEADY * r.min_s
    ]  # fmt: skip
    print(f"{processor()}: {len(quick)} quick records, {len(held_out)} held-out ones of a full one")
    fit = {row["kernel"]: row["held_out_mape"] for row in error_rows(full, fit_cpu(full), rng)}
    for base in options.base:
        device = load_device(base)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mine.toml"
            text = scaled_text(
                device, scaling(device, quick), machine=processor(), clock_hz=clock_hz()
            )
            path.write_text(text, encoding="utf-8")
            mine = load_device(path)
        before = relative_errors(held_out, lambda r, d=device: d.price_record(r).seconds)
        after = relative_errors(held_out, lambda r, d=mine: d.price_record(r).seconds)
        print(f"{base}: mean |error| (median error) as it is, scaled by the quick check; full fit")
        for kernel in before:
            print(
                f"  {kernel:<15} n={len(before[kernel]):<4} {_words(before[kernel])}"
                f"   {_words(after[kernel])}   {fit.get(kernel) or float('nan'):6.1%}"
            )
        for words, found in (("as it is", before), ("scaled", after)):
            print(f"  all, {words}: {_words(np.concatenate([*found.values()]))}")


def _words(errors: np.ndarray) -> str:
    return f"{np.abs(errors).mean():6.1%} ({np.median(errors):+6.1%})"


if __name__ == "__main__":
    main()
