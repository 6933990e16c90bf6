"""Times the CPU kernels of the machine at hand and writes its specification.

Under two minutes: shapes, batches and densities that fill the space of layers, for each kernel,
then a non-negative least squares fit of the seconds per counted term (`hwsim.cpu.costs`) to
relative errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hwsim.calibration.cpu import error_rows, fit_cpu, specification
from hwsim.calibration.dispatch import Calibration
from hwsim.cpu.costs import ROW_BY_ROW_SAMPLES, lookup_steps, weight_lines
from hwsim.errors import InputError
from hwsim.kernels.cpu import LINEAR
from hwsim.kernels.cpu.layer import Layer
from hwsim.kernels.cpu.selection import drop_grow_mask
from hwsim.kernels.cpu.tiled import TiledMatrix
from hwsim.mask import Mask
from hwsim.measured.cpu_cases import CASES, CpuCase, drawn_mask
from hwsim.measured.record import Measurement
from hwsim.measured.timing import TimedVariants, Timing, clock_hz, compare, processor

BUDGET_S = 90.0
_STREAM_BYTES = (1 << 16, 1 << 19, 1 << 21, 1 << 26, 1 << 27)
_ROUNDS = 3
_ROW_BY_ROW = ("gather", "lookup")


def measure_cpu(
    cases: Sequence[CpuCase] = CASES,
    *,
    threads: int = 1,
    budget_s: float = BUDGET_S,
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Times every kernel on the masks of the cases; one record per kernel, phase and size.

    BLAS uses `threads` threads too. One thread is timed by its own processor time, which other
    processes disturb least; several by the wall clock. All is timed again and again while there is
    time, and the fastest record is kept: what disturbs a machine lasts longer than a few rounds.

    Args:
        budget_s: by the wall clock. One pass over all cases is made at least (13 s on a quiet core
            for `CASES`); another is begun only if it should end in time.

    Raises:
        InputError: no cases, or a budget that is not above 0.
    """
    if not cases:
        raise InputError("cases: none given; allowed is at least one")
    if not budget_s > 0:
        raise InputError(f"budget_s: value is {budget_s!r}; allowed is above 0")
    seed = int(rng.integers(1 << 63))
    kept: dict[tuple, Measurement] = {}
    started = ended = time.perf_counter()
    dearest_s = 0.0
    while not kept or ended + dearest_s <= started + budget_s:
        again = np.random.default_rng(seed)
        with threadpool_limits(threads, user_api="blas"):
            records = _measured(cases, threads, again, progress)
        for r in records:
            at = (r.kernel, r.phase, r.shape, r.mask_digest)
            if at not in kept or r.min_s < kept[at].min_s:
                kept[at] = r
        began, ended = ended, time.perf_counter()
        dearest_s = max(dearest_s, ended - began)
    return list(kept.values())


def _measured(cases, threads, rng, progress) -> list[Measurement]:
    records = []
    timed = partial(
        compare,
        rounds=_ROUNDS,
        attempts=1,
        clock=time.thread_time if threads == 1 else time.perf_counter,
    )
    for case in cases:
        mask = drawn_mask(case.n_out, case.n_in, case.density, case.pattern, case.seed)
        weights = rng.standard_normal(mask.shape).astype(np.float32)
        names = ("dense", "csr", "gather", "lookup", "tiled", "sampled")
        layers = {name: LINEAR.get(name)(mask, weights, threads) for name in names}
        for m in case.batches:
            progress(f"{case.n_out}×{case.n_in}, density {case.density:g}, batch {m}")
            for phase, variants in _products(layers, mask, m, rng).items():
                records += _records(timed(variants), phase, m, mask, threads)
        records += _records(
            timed(_updates(mask, weights, threads, rng)), "update", 1, mask, threads
        )
        records += _patterned(timed, case, threads)
    for size in _STREAM_BYTES:
        source, target = np.ones(size // 8, np.float32), np.ones(size // 8, np.float32)
        found = timed({"stream": partial(np.add, source, 1, target)})
        records.append(_record(found.timings[0], "update", 1, size // 4, 1, threads))
    return records


def _products(
    layers: Mapping[str, Layer], mask: Mask, m: int, rng: np.random.Generator
) -> dict[str, dict[str, Callable[[], Any]]]:
    n, k = mask.shape
    x = rng.standard_normal((m, k)).astype(np.float32)
    dy = rng.standard_normal((m, n)).astype(np.float32)
    operands = {"forward": (x,), "grad_input": (dy,), "grad_weight": (dy, x)}
    return {
        phase: {
            name: partial(getattr(layer, phase), *given)
            for name, layer in layers.items()
            if phase in layer.phases and not (name in _ROW_BY_ROW and m > ROW_BY_ROW_SAMPLES)
        }
        for phase, given in operands.items()
        if phase != "grad_weight" or m > 1
    }


def _patterned(timed, case: CpuCase, threads) -> list[Measurement]:
    """Records of the kernels that need masks of their own."""
    records = []
    n, k = case.n_out, case.n_in
    if k % 32:
        return []
    rng = np.random.default_rng((case.seed, n, k, 32))
    order = rng.random((n, k // 32, 32)).argsort(axis=2)
    # Of four inputs in a row, those two whose turn comes first.
    quads = order.reshape(n, -1, 4).argsort(axis=2) < 2
    for name, array in (
        ("lookup", order < max(1, round(32 * case.density))),
        ("two_four", quads),
    ):
        mask = Mask(array.reshape(n, k))
        layer = LINEAR.get(name)(mask, np.ones((n, k), np.float32), threads)
        for m in (m for m in case.batches if m <= ROW_BY_ROW_SAMPLES):
            x = rng.standard_normal((m, k)).astype(np.float32)
            found = timed({name: partial(layer.forward, x)})
            records += _records(found, "forward", m, mask, threads)
    return records


def _updates(mask, weights, threads, rng) -> dict[str, Callable[[], Any]]:
    matrix, transposed = (TiledMatrix(mask.array, turned, threads) for turned in (False, True))
    order = transposed.order_in(matrix)
    gradients = rng.standard_normal(mask.shape).astype(np.float32)
    return {
        "repack": lambda: (matrix.repack(weights), transposed.take(matrix, order)),
        "select": lambda: drop_grow_mask(
            weights, gradients, mask.array, mask.nnz // 3, threads=threads
        ),
    }


def _records(
    found: TimedVariants, phase: str, m: int, mask: Mask, threads: int
) -> list[Measurement]:
    n, k = mask.shape
    return [_record(timing, phase, m, n, k, threads, mask) for timing in found.timings]


def _record(
    timing: Timing, phase: str, m: int, n: int, k: int, threads: int, mask: Mask | None = None
) -> Measurement:
    import numba

    low, high = timing.quartiles_s
    about: dict[str, Any] = {}
    if mask is not None:
        about = {
            "density": mask.density,
            "mask_digest": mask.digest,
            "row_nnz_mean": float(mask.row_nnz.mean()),
            "row_nnz_max": int(mask.row_nnz.max()),
            "weight_lines": weight_lines(mask),
        }
    if mask is not None and timing.name == "lookup":
        about["lookup_steps"] = lookup_steps(mask, phase)
    return Measurement(
        machine=processor(),
        toolchain=f"numba {numba.__version__}, numpy {np.__version__}",
        kernel=timing.name,
        phase=phase,
        m=m,
        n=n,
        k=k,
        dtype="float32",
        median_s=timing.median_s,
        min_s=timing.min_s,
        low_quartile_s=low,
        high_quartile_s=high,
        rounds=timing.rounds,
        threads=threads,
        packing=timing.name in ("tiled", "sampled"),
        **about,
    )


def calibrate_machine(
    *,
    threads: int = 1,
    budget_s: float = BUDGET_S,
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[Calibration, list[Measurement]]:
    """(specification of this machine and its errors, the records behind it).

    Takes `budget_s`, see `measure_cpu`, and a few seconds for the fit.
    """
    records = measure_cpu(threads=threads, budget_s=budget_s, rng=rng, progress=progress)
    fit = fit_cpu(records)
    text = specification(fit, records, clock_hz=clock_hz())
    return Calibration(text, error_rows(records, fit, rng), {}), records
