"""Processors known by their data sheets, held against what is known of them otherwise.

    python -m benchmarks.bench_data_sheet [--reference FOLDER] [--cases 16]

Two things are printed:

- **Ranks of public rows.** Kendall's τ of estimated and measured seconds over forward passes of
  PyTorch Image Models at batch 1 (`timm_*_infer_fp32_compile_pt240.json` in FOLDER, huggingface/
  pytorch-image-models, Apache-2.0), on an i9-10940X and an i7-12700H; beside it that of `zen3`,
  which is another processor. The half-rows: `dense_share`, `call_s` and the passes of weights were
  chosen with these rows in sight, from a grid of settings shared by both processors. So the
  grid is searched again on every second row, and what it chooses there is held against the others.
- **`zen3` as if it had no records**: the data sheet of that processor (`zen3-sheet`) against the
  prices of `zen3`, which is fitted to records of it and within 6 % of them, for the cases of
  `hwsim.measured.cpu_cases`, with misses that the cache simulation counts under the masks and
  without.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

PROCESSORS = {"i9_10940x": "i9-10940x", "i7_12700h": "i7-12700h"}
GRID = {
    "dense_share": (0.5, 0.7, 0.9), "call_s": (1e-5, 2e-5, 4e-5), "weight_passes": (1.0, 2.0, 4.0),
    "conv_weight_passes": (3.0, 5.0, 7.0),
}  # fmt: skip


def rows(folder: Path, processor: str) -> list[tuple[float, object]]:
    """(seconds, Workload) of every measured model."""
    from analysis.steps.record import Step
    from benchmarks._observed_steps import observed

    path = folder / f"timm_{processor}_infer_fp32_compile_pt240.json"
    found = []
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        step = Step(
            model=f"timm:{row['model']}", device="cpu", mode="forward", batch=row["batch"],
            seconds=row["step_ms"] / 1e3, image=row["image"], compiled=True,
        )  # fmt: skip
        found.append((step.seconds, observed(step)))
    return found


def ranks(folder: Path) -> None:
    from hwsim import load_device

    settings = [
        dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]
    for processor, name in PROCESSORS.items():
        measured = rows(folder, processor)
        seconds = np.array([s for s, _ in measured])

        def prices(device, of=measured):
            return np.array([device.estimate(work).seconds for _, work in of])

        def tau(estimates, where=slice(None), known=seconds):
            return float(kendalltau(estimates[where], known[where]).statistic)

        own = prices(load_device(name))
        other = prices(load_device("zen3"))
        scaled = own / seconds / np.exp(np.mean(np.log(own / seconds)))
        print(
            f"{name}: {len(measured)} models, τ {tau(own):.3f} (zen3 {tau(other):.3f}), estimate / "
            f"measurement {np.exp(np.mean(np.log(own / seconds))):.2f}, off by "
            f"{np.abs(scaled - 1).mean():.1%} beside that"
        )
        found = [prices(load_device(name, **setting)) for setting in settings]
        for chosen_on in (0, 1):
            seen, held_out = slice(chosen_on, None, 2), slice(1 - chosen_on, None, 2)
            best = max(range(len(found)), key=lambda i, s=seen: tau(found[i], s))
            print(
                f"  chosen on every second row ({tau(found[best], seen):.3f}): τ "
                f"{tau(found[best], held_out):.3f} on the others; {settings[best]}"
            )


def without_records(cases: int) -> None:
    from hwsim import gemm, load_device
    from hwsim.measured.cpu_cases import CASES, drawn_mask

    fitted = load_device("zen3")
    errors: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for simulate in (0, 1):
        sheet = load_device("zen3-sheet", simulate=simulate)
        for case in CASES[:cases]:
            mask = drawn_mask(case.n_out, case.n_in, case.density, case.pattern, case.seed)
            for m in case.batches:
                for phase in ("forward", "grad_input", "grad_weight"):
                    op = gemm(m, case.n_out, case.n_in, mask, phase)
                    known = {e.kernel: e.seconds for e in fitted.kernels(op) if e.legal}
                    for e in sheet.kernels(op):
                        if e.kernel in known:
                            samples = "one sample" if m == 1 else "more"
                            off = e.seconds / known[e.kernel] - 1
                            errors[e.kernel, samples][simulate].append(off)
    print("zen3 from its data sheet against zen3's fit: mean |error|, median error")
    for (kernel, samples), by in sorted(errors.items()):
        without, simulated = np.array(by[0]), np.array(by[1])
        print(
            f"  {kernel:<8} {samples:<10} n={len(without):<4}"
            f" {np.abs(without).mean():6.1%} {np.median(without):+6.1%} without,"
            f" {np.abs(simulated).mean():6.1%} {np.median(simulated):+6.1%} with the simulation"
        )
    masked = [by for (kernel, _), by in errors.items() if kernel != "dense"]
    for simulate, words in ((0, "without"), (1, "with")):
        off = np.concatenate([by[simulate] for by in masked])
        print(f"  masked kernels {words} the simulation: {np.abs(off).mean():.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = os.environ.get("NETTIME_REFERENCE")
    parser.add_argument("--reference", type=Path, default=Path(folder) if folder else None)
    parser.add_argument("--cases", type=int, default=16, help="layers of the second part")
    options = parser.parse_args()
    without_records(options.cases)
    if options.reference is None:
        print("no --reference and no NETTIME_REFERENCE: ranks of public rows are left out")
        return
    folder = options.reference
    ranks(folder / "external" if (folder / "external").is_dir() else folder)


if __name__ == "__main__":
    main()
