"""How well a fit to half of the public shapes predicts the other half: five random halves.

    NETTIME_REFERENCE=FOLDER python benchmarks/bench_gpu_fit.py [CARD…] [--seed 0] [--new-card]

FOLDER holds gpu_24_vllmbench.json (arXiv 2603.05232's public bench), which is read in place. A
shape is held out in every operand type and kernel at once. Rows are means over the halves; "again"
is what bfloat16 predicts if the same shape, timed in float16 on the same card, is taken for it: how
well the bench repeats itself. "limit" is what a model without error would be found to miss, since
what it is held against scatters.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hwsim import InputError, load_device
from hwsim.calibration.dispatch import calibrate
from hwsim.calibration.gpu import TimedProducts, Unseen, held_out
from hwsim.devices.gpu import Gpu
from hwsim.measured.crosscheck import CrossCheck, Pair, crosscheck
from hwsim.measured.record import Measurement

CARDS = {"A100": "a100", "H100": "h100", "B200": "b200", "RTX4090": "rtx4090"}
DTYPES = {"BF16": "bfloat16", "FP16": "float16", "INT8": "int8", "FP8": "float8"}
COLUMNS = {"dense": "dense_us", "2:4": "sparse24_us"}


def rows_of(card: str) -> list[dict]:
    """The bench's rows of one card.

    Raises:
        InputError: the file is not there.
    """
    folder = os.environ.get("NETTIME_REFERENCE")
    path = Path(folder or Path(__file__).parents[2] / "shared" / "reference")
    path /= "gpu_24_vllmbench.json"
    if not path.exists():
        raise InputError(f"{path}: No such file; NETTIME_REFERENCE must name its folder")
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [r for r in rows if r["gpu"] == card and r["dtype"] in DTYPES]


def timed_of(rows: Sequence[dict]) -> list[TimedProducts]:
    """The products of some rows, by kernel and operand type."""
    sets = []
    for kind, column in COLUMNS.items():
        for short, dtype in DTYPES.items():
            mine = [r for r in rows if r["dtype"] == short and r[column]]
            if mine:
                shapes = np.array([(r["M"], r["N"], r["K"]) for r in mine], float)
                sets.append(
                    TimedProducts(kind, dtype, shapes, np.log([r[column] * 1e-6 for r in mine]))
                )
    return sets


def check(unseen: Sequence[Unseen]) -> CrossCheck:
    """Held-out products as a cross-check."""
    return CrossCheck(
        "held out",
        tuple(
            Pair(
                Measurement.of_median(
                    u.measured_s, machine="public bench", toolchain="-", kernel=u.kind,
                    phase="forward", m=u.shape[0], n=u.shape[1], k=u.shape[2], dtype=u.dtype,
                    rounds=1, density=1.0 if u.kind == "dense" else 0.5,
                ),
                u.estimated_s, u.estimated_s, u.estimated_s,
            )
            for u in unseen
        ),
        {},
    )  # fmt: skip


def again(sets: Sequence[TimedProducts]) -> list[Unseen]:
    """bfloat16 predicted by float16 at the same shape and kernel."""
    found = []
    for kind in COLUMNS:
        both = {t.dtype: dict(zip(map(tuple, t.shapes), t.log_s, strict=True))
                for t in sets if t.kind == kind}  # fmt: skip
        for shape, log_s in both["bfloat16"].items():
            other = both.get("float16", {}).get(shape)
            if other is not None:
                whole = (int(shape[0]), int(shape[1]), int(shape[2]))
                found.append(
                    Unseen(kind, "bfloat16", whole, float(np.exp(log_s)), float(np.exp(other)))
                )
    return found


def figures_of(dtype: str, checks: Sequence[CrossCheck]) -> np.ndarray:
    """Errors of dense, 2:4 and speed-up, and τ: means over some cross-checks of one dtype."""
    only = [
        CrossCheck("", tuple(p for p in c.pairs if p.record.dtype == dtype), {}) for c in checks
    ]
    return np.mean(
        [
            (c.time_mape("dense"), c.time_mape("2:4"), c.speed_up_mape(), c.speed_up_tau())
            for c in only
        ],
        axis=0,
    )


def limit_of(repeated: np.ndarray) -> np.ndarray:
    """What a model without error would show, from how well one timing predicts another.

    Two timings differ by the scatter of both, a model and a timing by that of one: errors are
    divided by √2. Timings that correlate by r do so with what they time by √r; for normal
    deviates τ = 2/π arcsin r. What float16 and bfloat16 truly differ in counts as scatter; what
    both have in common, as the ticks of a clock, does not.

    Source: Greiner 1909 for τ; Spearman 1904 for √r.
    """
    r = np.sin(np.pi / 2.0 * repeated[3])
    return np.append(repeated[:3] / np.sqrt(2.0), 2.0 / np.pi * np.arcsin(np.sqrt(max(r, 0.0))))


def line(name: str, dtype: str, figures: np.ndarray) -> str:
    """One row of the table; what there is no figure of is a dash."""
    shown = "".join(f"{100 * f:8.1f} %" if f == f else f"{'–':>10}" for f in figures[:3])
    tau = f"{figures[3]:8.2f}" if figures[3] == figures[3] else ""
    return f"{name:>8} {dtype:>10}{shown}{tau}"


def records_of(rows: Sequence[dict]) -> list[Measurement]:
    """The bench's bfloat16 rows as records."""
    return [
        Measurement.of_median(
            row[column] * 1e-6, machine=row["gpu"], toolchain="public bench", kernel=kernel,
            phase="forward", m=row["M"], n=row["N"], k=row["K"], dtype="bfloat16", rounds=50,
            density=1.0 if kernel == "dense" else 0.5,
        )
        for row in rows
        if row["dtype"] == "BF16"
        for kernel, column in COLUMNS.items()
        if row[column]
    ]  # fmt: skip


def thirty(
    records: Sequence[Measurement], rng: np.random.Generator
) -> tuple[list[Measurement], list[Measurement]]:
    """Both records of fifteen random shapes, and all records of the other shapes.

    Raises:
        InputError: fewer than sixteen shapes with both.
    """
    kernels: dict[tuple, set[str]] = {}
    for record in records:
        kernels.setdefault(record.shape, set()).add(record.kernel)
    both = sorted(shape for shape, found in kernels.items() if len(found) == 2)
    if len(both) < 16:
        raise InputError(f"records: {len(both)} shapes with both kernels; allowed is 16 or more")
    chosen = {both[i] for i in rng.permutation(len(both))[:15]}
    return (
        [r for r in records if r.shape in chosen],
        [r for r in records if r.shape not in chosen],
    )


def interval_of(found: CrossCheck) -> np.ndarray:
    """The ends of the median interval relative to the estimate, and the share of times inside."""
    ends = np.array([(p.low_s, p.high_s) for p in found.pairs]).T
    below, above = np.median(ends / [p.estimated_s for p in found.pairs], axis=1) - 1.0
    return np.array([below, above, found.coverage()])


def new_card(name: str, sheet: Gpu, draws: range) -> None:
    """Prints how far off a data sheet alone is, and a fit to thirty records."""
    records = records_of(rows_of(name))
    found: dict[str, list[CrossCheck]] = {"data sheet": [], "30 records": []}
    for draw in draws:
        rng = np.random.default_rng(draw)
        seen, unseen = thirty(records, rng)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "card.toml"
            path.write_text(calibrate(sheet, seen, rng=rng).text, encoding="utf-8")
            fitted = load_device(path)
        found["data sheet"].append(crosscheck(sheet, unseen))
        found["30 records"].append(crosscheck(fitted, unseen))
    for how, checks in found.items():
        below, above, inside = np.mean([interval_of(c) for c in checks], axis=0)
        print(
            line(name, how, figures_of("bfloat16", checks))
            + f"   interval {100 * below:+.0f} … {100 * above:+.0f} %, inside {100 * inside:.0f} %"
        )


def halves(name: str, sheet: Gpu, seeds: range) -> None:
    """Prints how well random halves of the shapes predict the others, and the bench's limit."""
    sets = timed_of(rows_of(name))
    peaks = {t.dtype: sheet.peak(t.dtype) for t in sets}
    checks = [
        check(held_out(sets, sheet.card, peaks, folds=1, rng=np.random.default_rng(seed)))
        for seed in seeds
    ]
    for dtype in DTYPES.values():
        if any(t.dtype == dtype for t in sets):
            print(line(name, dtype, figures_of(dtype, checks)))
    repeated = figures_of("bfloat16", [check(again(sets))])
    print(line("again", "bfloat16", repeated))
    print(line("limit", "bfloat16", limit_of(repeated)))
    bfloat16 = tuple(p for c in checks for p in c.pairs if p.record.dtype == "bfloat16")
    for row in CrossCheck(name, bfloat16, {}).size_rows():
        print(
            f"         {row['kernel']:>9} {row['measured']:>10}: {row['records']:4d} records, "
            f"time {100 * row['time_mape']:.1f} %, bias {100 * row['bias']:+.1f} %"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cards", nargs="*", metavar="CARD", help=", ".join(CARDS))
    parser.add_argument("--halves", type=int, default=5, help="random halves, or draws of thirty")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the next ones follow")
    parser.add_argument("--new-card", action="store_true", help="data sheet alone, and 30 records")
    options = parser.parse_args()
    what = "from" if options.new_card else "operands"
    print(f"{'card':>8} {what:>10}{'dense':>10}{'2:4':>10}{'speed-up':>10}{'τ':>8}")
    for name in options.cards or CARDS:
        if name not in CARDS:
            raise InputError(f"card: value is {name!r}; allowed: {', '.join(CARDS)}")
        sheet = load_device(CARDS[name], fit="none")
        assert isinstance(sheet, Gpu)
        seeds = range(options.seed, options.seed + options.halves)
        (new_card if options.new_card else halves)(name, sheet, seeds)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"bench_gpu_fit: error: {error}") from None
