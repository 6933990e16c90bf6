"""How well whole steps are priced: held out by families of models, card by card.

    NETTIME_REFERENCE=FOLDER python -m benchmarks.bench_gpu_steps [CARD…] [--anew] [--write]

FOLDER holds the public sets of measured steps (`docs/gpu.md` names them); they are read in place.
Each step's model is built without weights and observed, which takes half a second each; what was
observed is kept (in $NETTIME_CACHE or the user's cache folder) under a digest of the observer's
sources, so that a change of them observes anew, as --anew does. For each card, from the steps
measured on it:

- fold: each family of models is priced by a fit to the others. Error is the mean of
  |estimated/measured − 1|, bias the mean log ratio, τ Kendall's; inside and half-width are of the
  interval that the other families' errors give (85 % of them).
- sheet: by the constants that a card without records is given: the leave-one-card-out error, but
  for the typical constants' being drawn up from all cards.
- others: by the geometric mean of the constants fitted to the other cards alone.

Steps of FSDP are priced as one card's kernels; what collectives and the shared update add to them
is by the machine's specification (bench_cluster.py fits that on folds too).

--write prints the constants for the card's specification. Sparse steps are never fitted:
bench_sparse_steps.py lists their measured speed-ups beside ours.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.steps.reading import read_steps
from analysis.steps.record import Step
from benchmarks._observed_steps import observed
from benchmarks._sharded_steps import Sharded
from hwsim import InputError, load_device
from hwsim.calibration.steps import (
    HeldOut,
    TimedStep,
    by_constants,
    by_typical,
    fit_steps,
    held_out,
)
from hwsim.devices.gpu import Gpu
from hwsim.gpu.whole_steps import CONSTANTS

# Measurer's name of the card → our specification.
CARDS = {
    "rtx4090": "rtx4090", "rtx3090": "rtx3090", "a100_80gb_sxm": "a100_sxm",
    "a100_40gb_sxm": "a100_40gb_sxm", "a100_80gb_pcie": "a100", "a100_40gb_pcie": "a100_40gb",
    "h100_sxm": "h100_sxm", "v100_pcie": "v100", "t4": "t4",
}  # fmt: skip
FILES = ("gpu_model_steps.json", "external/timm_rtx*.json")
SHARDED = {"A100-SXM4-80GB": "a100_80gb_sxm", "A100-SXM4-40GB": "a100_40gb_sxm",
           "H100-SXM5-80GB": "h100_sxm"}  # fmt: skip
INSIDE = 0.85


def steps_in(folder: Path, cached: bool) -> list[tuple[str, Step, TimedStep]]:
    """Every step of the public sets whose model can be built: file, step, observed."""
    found = []
    for pattern in FILES:
        for path in sorted(folder.glob(pattern)):
            for step in read_steps(path):
                if step.device in CARDS:
                    timed = TimedStep(observed(step, cached), step.seconds, step.family)
                    found.append((path.stem, step, timed))
    for row in json.loads((folder / "llm_training_steps.json").read_text("utf-8"))["rows"]:
        sharded, card = Sharded(row), SHARDED[row["gpu"]]
        step = Step("decoder", card, "training", row["micro_batch"], sharded.seconds,
                    sequence=row["seq"], precision="bfloat16")  # fmt: skip
        where = "one node" if row["gpus"] == 8 else "many nodes"
        timed = sharded.timed(load_device(CARDS[card]))
        found.append((f"llm_training_steps, {where}", step, timed))
    return found


def figures(held: Sequence[HeldOut]) -> str:
    from scipy.stats import kendalltau

    logs = np.array([h.log_error for h in held])
    pairs = [(h.estimated_s, h.timed.seconds) for h in held]
    tau = kendalltau(*zip(*pairs, strict=True))[0] if len(pairs) > 1 else float("nan")
    error = float(np.abs(np.expm1(logs)).mean())
    return f"{len(held):4d} {100 * error:7.1f} % {100 * logs.mean():+7.1f} % {tau:7.2f}"


def ends_of(held: Sequence[HeldOut]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each step is inside an interval drawn up from the other families' errors, and the
    half-width of that."""
    logs = np.array([abs(h.log_error) for h in held])
    families = np.array([h.timed.family for h in held])
    ends = np.array([
        np.quantile(logs[families != f], INSIDE) if (families != f).any() else logs.max()
        for f in families
    ])  # fmt: skip
    return logs <= ends, np.sinh(ends)


def intervals(inside: np.ndarray, widths: np.ndarray) -> str:
    return f"inside {100 * inside.mean():.0f} %, half-width {100 * np.median(widths):.1f} %"


def card_rows(
    name: str, steps: list[tuple[str, Step, TimedStep]], others: Sequence[dict[str, float]],
    folds: list[tuple[np.ndarray, np.ndarray]],
) -> list[float]:  # fmt: skip
    """Prints one card's table; errors by constants of the other cards alone. What intervals of
    folds hold is added to `folds`."""
    device = load_device(CARDS[name])
    assert isinstance(device, Gpu)
    timed = [t for _, _, t in steps]
    fold = {id(h.timed): h for h in held_out(device, timed)}
    sheet = {id(h.timed): h for h in by_typical(device, timed)}
    mean = {k: float(np.exp(np.mean([np.log(o[k]) for o in others]))) for k in CONSTANTS}
    apart = {id(h.timed): h for h in by_constants(device, timed, mean)}
    for file in sorted({f for f, _, _ in steps}):
        mine = [t for f, _, t in steps if f == file]
        lengths = [s.sequence for f, s, _ in steps if f == file]
        for how, held in (("fold", fold), ("sheet", sheet), ("others", apart)):
            rows = [held[id(t)] for t in mine]
            more = ""
            if how == "fold":
                folds.append(ends_of(rows))
                more = f"   {intervals(*folds[-1])}"
            if how == "fold" and len(set(lengths)) > 3:
                slope = np.polyfit(np.log2(lengths), [h.log_error for h in rows], 1)[0]
                more += f", slope a doubling of the sequence {slope:+.3f}"
            print(f"{CARDS[name]:>14} {file:41} {how:>7} {figures(rows)}{more}")
    return [abs(float(np.expm1(h.log_error))) for h in apart.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cards", nargs="*", metavar="CARD", help=", ".join(CARDS))
    parser.add_argument("--anew", action="store_true", help="observe every step again")
    parser.add_argument("--write", action="store_true", help="print the constants")
    options = parser.parse_args()
    folder = Path(os.environ.get("NETTIME_REFERENCE", ""))
    if not (folder / FILES[0]).is_file():
        raise InputError(f"NETTIME_REFERENCE: {FILES[0]} is not in {str(folder)!r}")
    for name in options.cards:
        if name not in CARDS:
            raise InputError(f"card: value is {name!r}; allowed: {', '.join(CARDS)}")
    found = steps_in(folder, not options.anew)
    on = {c: [row for row in found if row[1].device == c] for c in CARDS}
    on = {c: rows for c, rows in on.items() if rows}
    fits = {}
    for card, rows in on.items():
        device = load_device(CARDS[card])
        assert isinstance(device, Gpu)
        fits[card] = fit_steps(device, [t for _, _, t in rows])
    print(f"{'card':>14} {'set':41} {'how':>7} {'n':>4} {'error':>9} {'bias':>9} {'τ':>7}")
    apart: list[float] = []
    folds: list[tuple[np.ndarray, np.ndarray]] = []
    for card in options.cards or on:
        others = [fit for other, fit in fits.items() if other != card]
        apart.append(float(np.mean(card_rows(card, on[card], others, folds))))
        if options.write:
            print("   ", ", ".join(f"{k} = {v:.3g}" for k, v in fits[card].items()))
    inside, widths = (np.concatenate(part) for part in zip(*folds, strict=True))
    print(f"all folds, {len(inside)} steps: {intervals(inside, widths)}")
    print(f"each card by the others' constants, mean over cards: {100 * np.mean(apart):.1f} %")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench_gpu_steps: error: {error}") from None
