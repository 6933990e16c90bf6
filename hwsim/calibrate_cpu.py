"""Times the CPU kernels of the machine at hand and writes its specification.

Under two minutes: a few shapes, batches and densities for each kernel, then a non-negative least
squares fit of the seconds per counted term (`hwsim.cpu_costs`) to relative errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hwsim.calibrate import Calibration
from hwsim.cpu_fit import error_rows, fit_cpu, specification
from hwsim.kernels.cpu import LINEAR
from hwsim.kernels.cpu._tiled import TiledMatrix
from hwsim.kernels.cpu.selection import drop_grow_mask
from hwsim.mask import Mask
from hwsim.measure import Comparison, Timing, clock_hz, compare, processor
from hwsim.measurement import Measurement

SHAPES = ((768, 768), (3072, 768), (768, 3072), (512, 1024))  # (n_out, n_in)
BATCHES = (1, 8, 32, 64, 256)
DENSITIES = (0.03, 0.1, 0.3)
UNSEEN_SHAPES = ((1024, 1024), (512, 2048), (1536, 384))
UNSEEN_BATCHES = (1, 24, 128, 384)
UNSEEN_DENSITIES = (0.05, 0.2)
_STREAM_BYTES = (1 << 16, 1 << 19, 1 << 21, 1 << 26, 1 << 27)
_ROUNDS = 3
PASSES = 2


def measure_cpu(
    shapes: Sequence[tuple[int, int]] = SHAPES,
    batches: Sequence[int] = BATCHES,
    densities: Sequence[float] = DENSITIES,
    *,
    threads: int = 1,
    passes: int = PASSES,
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Times every kernel on random masks; one record per kernel, phase and size.

    BLAS uses `threads` threads too. One thread is timed by its own processor time, which other
    processes disturb least; several by the wall clock. All is timed `passes` times, a minute
    apart, and the fastest record is kept: what disturbs a machine lasts longer than a few rounds.
    """
    seed = int(rng.integers(1 << 63))
    kept: dict[tuple, Measurement] = {}
    for _ in range(passes):
        again = np.random.default_rng(seed)
        with threadpool_limits(threads, user_api="blas"):
            records = _measured(shapes, batches, densities, threads, again, progress)
        for r in records:
            at = (r.kernel, r.phase, r.shape, r.mask_digest)
            if at not in kept or r.min_s < kept[at].min_s:
                kept[at] = r
    return list(kept.values())


def _measured(shapes, batches, densities, threads, rng, progress) -> list[Measurement]:
    records = []
    timed = partial(
        compare,
        rounds=_ROUNDS,
        attempts=1,
        clock=time.thread_time if threads == 1 else time.perf_counter,
    )
    for n, k in shapes:
        for density in densities:
            mask = Mask(rng.random((n, k)) < density)
            weights = rng.standard_normal((n, k)).astype(np.float32)
            for m in batches:
                progress(f"{n}×{k}, density {density:g}, batch {m}")
                for phase, variants in _products(mask, weights, m, threads, rng).items():
                    found = timed(variants)
                    records += _records(found, phase, m, mask, threads)
            found = timed(_updates(mask, weights, threads, rng))
            records += _records(found, "update", 1, mask, threads)
    records += _patterned(timed, shapes, batches, densities, threads, rng)
    for size in _STREAM_BYTES:
        source, target = np.ones(size // 8, np.float32), np.ones(size // 8, np.float32)
        found = timed({"stream": partial(np.add, source, 1, target)})
        records.append(_record(found.timings[0], "update", 1, size // 4, 1, threads))
    return records


def _products(mask, weights, m, threads, rng) -> dict[str, dict[str, Callable[[], Any]]]:
    n, k = mask.shape
    x = rng.standard_normal((m, k)).astype(np.float32)
    dy = rng.standard_normal((m, n)).astype(np.float32)
    names = ("dense", "csr", "gather", "tiled", "sampled")
    layers = {name: LINEAR.get(name)(mask, weights, threads) for name in names}
    operands = {"forward": (x,), "grad_input": (dy,), "grad_weight": (dy, x)}
    return {
        phase: {
            name: partial(getattr(layer, phase), *given)
            for name, layer in layers.items()
            # Row by row is for small batches.
            if phase in layer.phases and not (name == "gather" and m > 8)
        }
        for phase, given in operands.items()
        if phase != "grad_weight" or m > 1
    }


def _patterned(timed, shapes, batches, densities, threads, rng) -> list[Measurement]:
    """Records of the kernels that need masks of their own."""
    records = []
    for n, k in (shape for shape in shapes if shape[1] % 32 == 0):
        order = rng.random((n, k // 32, 32)).argsort(axis=2)
        masks = [("balanced", order < max(1, round(32 * density))) for density in densities]
        # Of four inputs in a row, those two whose turn comes first.
        quads = order.reshape(n, -1, 4).argsort(axis=2)
        masks.append(("two_four", quads < 2))
        for name, array in masks:
            mask = Mask(array.reshape(n, k))
            layer = LINEAR.get(name)(mask, np.ones((n, k), np.float32), threads)
            for m in (m for m in batches if m <= 8):
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


def _records(found: Comparison, phase: str, m: int, mask: Mask, threads: int) -> list[Measurement]:
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
        }
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
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[Calibration, list[Measurement]]:
    """(specification of this machine and its errors, the records behind it).

    Takes a minute or two.
    """
    records = measure_cpu(threads=threads, rng=rng, progress=progress)
    fit = fit_cpu(records)
    text = specification(fit, records, clock_hz=clock_hz())
    return Calibration(text, error_rows(records, fit, rng), {}), records


def measure_unseen(
    *, threads: int = 1, passes: int = PASSES, rng: np.random.Generator
) -> list[Measurement]:
    """Records of shapes, batches and densities that `calibrate_machine` does not fit to."""
    return measure_cpu(
        UNSEEN_SHAPES, UNSEEN_BATCHES, UNSEEN_DENSITIES, threads=threads, passes=passes, rng=rng
    )
