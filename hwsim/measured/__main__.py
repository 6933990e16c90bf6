"""The GPU suite from a source tree, on a machine that has torch, triton and numpy alone.

    python -m hwsim.measured gpu.jsonl --minutes 8

What `nettime measure gpu` does, without its tables: the records are appended to the file, and the
same command goes on.
"""

from __future__ import annotations

import argparse
import sys

from hwsim.errors import InputError
from hwsim.measured.gpu_suite import plan, run_suite


def main() -> None:
    """Runs the suite; leaves the process with 2 and one line where it cannot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", help="records, JSON Lines (.jsonl); appended to")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="begin nothing new after so long"
    )
    options = parser.parse_args()
    try:
        try:
            from hwsim.kernels.gpu.suite.timer import CudaTimer, clocks
        except ImportError as error:
            raise InputError(
                f"module {error.name!r} is not installed; allowed: torch and triton"
            ) from None
        timer, groups = CudaTimer(), plan()
        before = clocks()
        outcome = run_suite(
            groups, timer, options.out, budget_s=60.0 * options.minutes,
            progress=lambda done, note="": print(f"{done} of {len(groups)} {note}", flush=True),
        )  # fmt: skip
    except InputError as error:
        print(f"hwsim.measured: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{timer.machine}: {len(outcome.measured)} measured, {outcome.kept} kept")
    print(f"SM clock, power, temperature: {before} before, {clocks()} after")
    for why, count in outcome.skipped.items():
        print(f"no record: {count} × {why}")
    if outcome.left:
        print(f"{outcome.left} cases left: start the same command again")


if __name__ == "__main__":
    main()
