"""Times the CPU kernels of the machine at hand and writes its specification.

Under two minutes: a few shapes, batches and densities for each kernel, then a non-negative least
squares fit of the seconds per counted term (`hwsim.cpu_costs`) to relative errors.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hwsim.cpu_costs import KERNEL_TERMS, dense_kernel, terms
from hwsim.errors import InputError
from hwsim.kernels.cpu import LINEAR
from hwsim.kernels.cpu._tiled import TiledMatrix
from hwsim.kernels.cpu.selection import drop_grow_mask
from hwsim.mask import Mask
from hwsim.measure import UNSTEADY, Comparison, Timing, cache_bytes, clock_hz, compare, processor
from hwsim.measurement import Measurement

SHAPES = ((768, 768), (3072, 768), (768, 3072), (512, 1024))  # (n_out, n_in)
BATCHES = (1, 8, 32, 64, 256)
DENSITIES = (0.03, 0.1, 0.3)
UNSEEN_SHAPES = ((1024, 1024), (512, 2048), (1536, 384))
UNSEEN_BATCHES = (1, 24, 128, 384)
UNSEEN_DENSITIES = (0.05, 0.2)
_STREAM_BYTES = (1 << 16, 1 << 19, 1 << 21, 1 << 26, 1 << 27)
_ROUNDS = 7


@dataclass(frozen=True)
class CpuFit:
    """Seconds per term of each kernel, and how far the fit is from what it was made of.

    Attributes:
        costs: kernel → term → seconds.
        spread: kernel → relative error that 90 % of its records stay within.
    """

    costs: dict[str, dict[str, float]]
    spread: dict[str, float]


def measure_cpu(
    shapes: Sequence[tuple[int, int]] = SHAPES,
    batches: Sequence[int] = BATCHES,
    densities: Sequence[float] = DENSITIES,
    *,
    threads: int = 1,
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Times every kernel on random masks; one record per kernel, phase and size.

    BLAS uses as many threads as its library is set to: set OPENBLAS_NUM_THREADS to `threads`
    before Python starts. One thread is timed by its own processor time, which other processes
    disturb least; several by the wall clock.
    """
    records = []
    timed = partial(
        compare,
        rounds=_ROUNDS,
        attempts=2,
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
    both = [TiledMatrix(mask.array, turned, threads) for turned in (False, True)]
    gradients = rng.standard_normal(mask.shape).astype(np.float32)
    return {
        "repack": lambda: [matrix.repack(weights) for matrix in both],
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


def fit_cpu(records: Iterable[Measurement]) -> CpuFit:
    """Seconds per term, by non-negative least squares on relative errors.

    Raises:
        InputError: a kernel without enough records for its terms.
    """
    by_kernel: dict[str, list[Measurement]] = {name: [] for name in KERNEL_TERMS}
    for record in records:
        name = kernel_of(record)
        if name in by_kernel:
            by_kernel[name].append(record)
    costs, spread = {}, {}
    for name, known in by_kernel.items():
        least = len(KERNEL_TERMS[name])
        if len(known) < least:
            raise InputError(
                f"records: {len(known)} of kernel {name!r}; allowed are at least {least}"
            )
        # What was disturbed is left out where enough is left.
        steady = [r for r in known if r.median_s <= UNSTEADY * r.min_s]
        costs[name], errors = _fit_kernel(name, steady if len(steady) >= 2 * least else known)
        spread[name] = float(np.percentile(errors, 90))
    return CpuFit(costs, spread)


def kernel_of(record: Measurement) -> str:
    """The kernel of `hwsim.cpu_costs` that a record belongs to."""
    return dense_kernel(record.phase, record.m) if record.kernel == "dense" else record.kernel


def _fit_kernel(name: str, records: list[Measurement]) -> tuple[dict[str, float], np.ndarray]:
    from scipy.optimize import nnls

    columns = KERNEL_TERMS[name]
    cached = cache_bytes().get("L3", 32 << 20) // 4
    counts = np.array([
        [found[c] for c in columns]
        for found in (
            terms(name, r.phase, r.m, r.n, r.k, round(r.density * r.n * r.k), cached)
            for r in records
        )
    ])  # fmt: skip
    # The fastest sample: a median also measures what else the machine was doing.
    seconds = np.array([r.min_s for r in records])
    relative = counts / seconds[:, None]
    scale = relative.max(axis=0)
    scale[scale == 0] = 1.0
    weights = np.ones(len(records))
    solution = np.zeros(len(columns))
    # A few rounds in which what lies far off counts less: single records are disturbed.
    for _ in range(5):
        solution = nnls(relative / scale * weights[:, None], weights)[0] / scale
        errors = np.abs(relative @ solution - 1.0)
        weights = 1.0 / np.sqrt(1.0 + (errors / 0.1) ** 2)
    return dict(zip(columns, solution.tolist(), strict=True)), errors


def specification(fit: CpuFit, records: Sequence[Measurement], *, clock_hz: float) -> str:
    """The TOML text of the machine that `records` are from."""
    machine, threads = records[0].machine, records[0].threads
    dense = [r for r in records if r.kernel == "dense" and r.m > 1]
    peak = 1.1 * max(2.0 * r.m * r.n * r.k / r.min_s for r in dense)
    source = f"fitted: nettime calibrate cpu on {machine}, {platform.system()}, {threads} thread(s)"
    lines = [
        'model = "cpu"',
        f'description = "{machine}, {threads} thread(s), the kernels of hwsim.kernels.cpu"',
        "",
        "[parameters]",
        _entry("clock_hz", clock_hz, "Hz", "the kernel's report of the core's clock"),
        _entry("threads", threads, "1", "threads that the kernels were timed with"),
        _entry("peak_flops", peak, "FLOP/s", "1.1 × the fastest dense product timed"),
        # Two vector loads a cycle beside two multiply-adds: 2 FLOP for 4 bytes; twice to be safe.
        _entry("cache_bytes_per_s", 4.0 * peak, "B/s", "assumed: 4 bytes a FLOP is out of reach"),
        _entry(
            "last_level_bytes", float(cache_bytes().get("L3", 32 << 20)), "B",
            "the kernel's report",
        ),
    ]  # fmt: skip
    for name, table in fit.costs.items():
        lines.append(_entry(name, table, "s", source))
    lines.append(_entry("attention_share", 0.5, "1", "assumed: as measured on a Zen 3 EPYC"))
    lines.append(_entry("spread", fit.spread, "1", "relative error of the fit, 90 % of records"))
    return "\n".join(lines) + "\n"


def calibrate_machine(
    *,
    threads: int = 1,
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[str, list[Measurement]]:
    """(specification of this machine as TOML text, the records behind it); about a minute."""
    records = measure_cpu(threads=threads, rng=rng, progress=progress)
    return specification(fit_cpu(records), records, clock_hz=clock_hz()), records


def _entry(name: str, value: Any, unit: str, source: str) -> str:
    if isinstance(value, dict):
        text = "{ " + ", ".join(f"{key} = {number:.4g}" for key, number in value.items()) + " }"
    else:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f'{name} = {{ value = {text}, unit = "{unit}", source = "{source}" }}'


def relative_errors(
    records: Iterable[Measurement], estimate: Callable[[Measurement], float]
) -> dict[str, np.ndarray]:
    """Kernel → estimate / fastest sample − 1, one per record."""
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(kernel_of(record), []).append(estimate(record) / record.min_s - 1.0)
    return {name: np.array(errors) for name, errors in found.items()}
