"""Measuring a GPU: which kernels at which sizes, in which order, and the records that come of it.

The plan is fixed; the timer is passed in. What a file already holds is not measured again, so an
interrupted run is taken up by starting it again. Kernels of one group are timed in shuffled order
within each round, as `measure.compare` does it for CPUs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hwsim.errors import InputError
from hwsim.files import read_bytes
from hwsim.measured.record import Measurement, parse_measurement, read_measurements
from hwsim.measured.timing import SAMPLE_S, UNSTEADY

ROUNDS = 15
BUDGET_S = 480.0
_ATTEMPTS = 3
_MOST_CALLS = 4096
FORWARD, GRAD_INPUT, GRAD_WEIGHT = "forward", "grad_input", "grad_weight"
# Weights (n, k) of BERT-base, BERT-large and ViT-L, and of decoders of one to seven billion.
LAYERS = ((768, 768), (3072, 768), (768, 3072), (1024, 1024), (4096, 1024), (1024, 4096),
          (2048, 2048), (8192, 2048), (4096, 4096), (11008, 4096), (4096, 11008),
          (10240, 8192))  # fmt: skip
ROWS = (64, 256, 1024, 4096, 16384)
STEPS = {"bert-base": (16384, 768, 12), "vit-large": (12608, 1024, 24)}
V_N_M = ("v_n_m 64", "v_n_m 128")
STEP_KINDS = ("dense", "2:4", "transposable 2:4")


@dataclass(frozen=True)
class GpuCase:
    """One kernel at one size. Fields mean what they mean in `Measurement`.

    Attributes:
        kernel: dense, 2:4 (cuSPARSELt), 2:4 cutlass, csr, gather, block, v_n_m 64 or v_n_m 128 (V;
            the density is 2/M), library pack, fused pack (phase update: one weight pruned or
            packed), or a training step like "bert-base dense" (phase step: rows, width, layers).
    """

    kernel: str
    phase: str
    m: int
    n: int
    k: int
    dtype: str = "bfloat16"
    density: float = 1.0
    graph: bool = True
    packing: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """All fields: cases of equal keys are one."""
        return tuple(asdict(self).values())


@dataclass(frozen=True)
class PreparedCase:
    """A case ready to be timed.

    Attributes:
        call: what to call.
        runs: how many times the kernel runs in one call.
        note: how a library was told to run it; stands in the record's toolchain.
    """

    call: Callable[[], Any]
    runs: int = 1
    note: str = ""


class Timer(Protocol):
    """Runs kernels and reads the clock: `hwsim.kernels.gpu.suite.timer.CudaTimer`, or a fake."""

    machine: str

    def toolchain(self, case: GpuCase) -> str:
        """Versions of what a kernel is made with."""
        ...

    def prepare(self, case: GpuCase) -> PreparedCase:
        """Operands and kernel, run once and checked; InputError or RuntimeError if it cannot."""
        ...

    def sample(self, prepared: PreparedCase, calls: int) -> float:
        """Seconds of `calls` calls one after the other."""
        ...


@dataclass
class SuiteResult:
    """What a run of the suite did.

    Attributes:
        measured: records written now.
        kept: cases that the file already held.
        left: cases not reached within the budget.
        skipped: why cases gave no record, with how many.
    """

    measured: list[Measurement] = field(default_factory=list)
    kept: int = 0
    left: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, why: str) -> None:
        """Counts a case that was left out, by its reason."""
        self.skipped[why] = self.skipped.get(why, 0) + 1


def plan() -> list[list[GpuCase]]:
    """Groups of cases; those of a group are compared with each other. The most telling first."""
    return [*_steps(), *_products(), *_directions(), *_packing(), *_types(), *_eager(), *_sparse(),
            *_v_n_m()]  # fmt: skip


def _products() -> list[list[GpuCase]]:
    """Dense and both 2:4 backends forward, in graphs: what a fit needs."""
    return [
        [GpuCase("dense", FORWARD, m, n, k), GpuCase("2:4", FORWARD, m, n, k, density=0.5),
         GpuCase("2:4 cutlass", FORWARD, m, n, k, density=0.5)]
        for n, k in LAYERS
        for m in ROWS
    ]  # fmt: skip


def _directions() -> list[list[GpuCase]]:
    """Both gradients: grad_input also by 2:4, grad_weight dense."""
    return [
        [GpuCase("dense", GRAD_INPUT, m, n, k), GpuCase("2:4", GRAD_INPUT, m, n, k, density=0.5),
         GpuCase("dense", GRAD_WEIGHT, m, n, k)]
        for n, k in LAYERS[::2]
        for m in (1024, 16384)
    ]  # fmt: skip


def _packing() -> list[list[GpuCase]]:
    """A weight packed by the library, pruned and packed both ways at once, and with a product.

    The library's calls are eager: they make plans and buffers, which no graph can capture.
    """
    return [
        [GpuCase("library pack", "update", 1, n, k, density=0.5, graph=False),
         GpuCase("fused pack", "update", 1, n, k, density=0.5),
         GpuCase("2:4", FORWARD, 4096, n, k, density=0.5, graph=False, packing=True)]
        for n, k in LAYERS[:10]
    ]  # fmt: skip


def _types() -> list[list[GpuCase]]:
    """Other operand types: float16 with 2:4, tf32 with CUTLASS's, float32 dense."""
    groups = []
    for n, k in LAYERS[1::3]:
        for m in (1024, 8192):
            groups += [
                [GpuCase("dense", FORWARD, m, n, k, "float16"),
                 GpuCase("2:4", FORWARD, m, n, k, "float16", 0.5)],
                [GpuCase("dense", FORWARD, m, n, k, "tfloat32"),
                 GpuCase("2:4 cutlass", FORWARD, m, n, k, "tfloat32", 0.5)],
                [GpuCase("dense", FORWARD, m, n, k, "float32")],
            ]  # fmt: skip
    return groups


def _eager() -> list[list[GpuCase]]:
    """The same kernels launched by the host, one by one."""
    return [
        [GpuCase("dense", FORWARD, m, n, k, graph=False),
         GpuCase("2:4", FORWARD, m, n, k, density=0.5, graph=False)]
        for n, k in LAYERS[:6]
        for m in (64, 4096)
    ]  # fmt: skip


def _sparse() -> list[list[GpuCase]]:
    """Triton's kernels at high sparsity, against the dense product."""
    groups = []
    for n, k in ((3072, 768), (4096, 4096)):
        for m in (16, 256, 4096):
            for density in (0.02, 0.05, 0.1):
                names = ("csr", "gather", "block")
                phases = (FORWARD, GRAD_INPUT, GRAD_WEIGHT) if m == 256 else (FORWARD,)
                for phase in phases:
                    groups.append(
                        [GpuCase("dense", phase, m, n, k)]
                        + [GpuCase(name, phase, m, n, k, density=density) for name in names]
                    )
    return groups


def _v_n_m() -> list[list[GpuCase]]:
    """V:N:M in Triton against the dense product, at sizes that `_products` has 2:4 for.

    What its price assumes: tall and low blocks, wide and narrow, and the sums of grad_input.
    """
    groups = []
    for n, k in ((3072, 768), (4096, 4096)):
        for m in (1024, 16384):
            for density in (1 / 4, 1 / 8, 1 / 16):
                blocks = [GpuCase(name, FORWARD, m, n, k, density=density) for name in V_N_M]
                groups.append([GpuCase("dense", FORWARD, m, n, k), *blocks])
        for phase in (GRAD_INPUT, GRAD_WEIGHT):
            blocks = [GpuCase(V_N_M[1], phase, 16384, n, k, density=d) for d in (1 / 8, 1 / 16)]
            groups.append([GpuCase("dense", phase, 16384, n, k), *blocks])
    return groups


def _steps() -> list[list[GpuCase]]:
    """Whole training steps: forward, backward, optimizer, packing of changed values."""
    return [
        [GpuCase(f"{model} {kind}", "step", *sizes, density=1.0 if kind == "dense" else 0.5,
              graph=False, packing=kind != "dense")
         for kind in STEP_KINDS]
        for model, sizes in STEPS.items()
    ]  # fmt: skip


def run_suite(
    groups: Sequence[Sequence[GpuCase]],
    timer: Timer,
    path: str | Path,
    *,
    budget_s: float = BUDGET_S,
    rounds: int = ROUNDS,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
    progress: Callable[..., None] = lambda done, note="": None,
) -> SuiteResult:
    """Measures what `path` does not hold yet and appends it, group by group.

    Args:
        groups: of `plan()`, or a part of it.
        budget_s: no group is begun after so long.
        seed: of the order within a round.
        clock: seconds, for the budget alone.
        progress: called with groups done and a few words.

    Raises:
        InputError: a file with a broken record, one of another machine, or that cannot be written.
    """
    target = Path(path)
    held = _held(target, timer.machine)
    rng = np.random.default_rng(seed)
    outcome = SuiteResult()
    started = clock()
    for done, group in enumerate(groups):
        todo = [case for case in dict.fromkeys(group) if case.key not in held]
        outcome.kept += len(set(group)) - len(todo)
        if todo and clock() - started > budget_s:
            outcome.left += len(todo)
            continue
        records = _measured(todo, timer, rounds, rng, outcome)
        _append(target, records)
        outcome.measured += records
        held.update(case.key for case in todo)  # also what was skipped: not twice in one run
        progress(done + 1, group[0].kernel if group else "")
    return outcome


def _measured(
    todo: Sequence[GpuCase],
    timer: Timer,
    rounds: int,
    rng: np.random.Generator,
    outcome: SuiteResult,
) -> list[Measurement]:
    ready: dict[GpuCase, PreparedCase] = {}
    for case in todo:
        try:
            ready[case] = timer.prepare(case)
        except (InputError, RuntimeError, NotImplementedError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            outcome.skip(f"{case.kernel}: {first[:160]}")
    if not ready:
        return []
    calls = {case: _calls(timer, prepared) for case, prepared in ready.items()}
    samples: dict[GpuCase, list[float]] = {}
    left = list(ready)
    for _ in range(_ATTEMPTS):
        samples.update({case: [] for case in left})
        for _ in range(rounds):
            for i in rng.permutation(len(left)):
                case = left[i]
                taken = timer.sample(ready[case], calls[case])
                samples[case].append(taken / (calls[case] * ready[case].runs))
        left = [c for c in left if np.median(samples[c]) > UNSTEADY * min(samples[c])]
        if not left:
            break
    for case in left:
        outcome.skip(f"{case.kernel}: unsteady, median over {UNSTEADY}× the least time")
    return [_record(c, samples[c], timer, ready[c].note) for c in ready if c not in left]


def _calls(timer: Timer, prepared: PreparedCase) -> int:
    """How many calls fill a sample."""
    calls = 1
    while calls < _MOST_CALLS and timer.sample(prepared, calls) < SAMPLE_S:
        calls *= 2
    return calls


# How every line begins that `_append` writes.
_BEGINNING = b'{"machine": "'
_LARGEST_BYTES = 256 << 20


def _record(case: GpuCase, samples: list[float], timer: Timer, note: str) -> Measurement:
    low, median, high = (float(x) for x in np.percentile(samples, [25, 50, 75]))
    return Measurement(
        machine=timer.machine, toolchain=", ".join(filter(None, (timer.toolchain(case), note))),
        median_s=median,
        min_s=float(min(samples)), low_quartile_s=low, high_quartile_s=high,
        rounds=len(samples), **asdict(case),
    )  # fmt: skip


def _held(path: Path, machine: str) -> set[tuple[Any, ...]]:
    """Keys of the cases that a file holds; a last line that was cut off is removed first."""
    if not path.exists():
        return set()
    _mend(path)
    records = read_measurements(path)
    others = {r.machine for r in records} - {machine}
    if others:
        raise InputError(
            f"{path}: holds records of {', '.join(sorted(others))}; this machine is {machine}"
        )
    names = tuple(GpuCase.__dataclass_fields__)
    return {tuple(getattr(r, name) for name in names) for r in records}


def _mend(path: Path) -> None:
    """Ends a last line that has no end: a whole record is kept, a part of one removed.

    Raises:
        InputError: something else than records stands in the file, which is left as it is.
    """
    content = read_bytes(path, f"measurements {path}", _LARGEST_BYTES)
    whole, _, last = content.rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n"), 1):
        if line.strip():
            parse_measurement(f"{path}:{number}", line.decode("utf-8", "replace"))
    if not last.strip():
        return
    try:
        parse_measurement(str(path), last.decode("utf-8", "replace"))
    except InputError as error:
        if not last.startswith(_BEGINNING[: len(last)]):
            raise InputError(f"{error}; not a file of records, and left as it is") from None
        with path.open("r+b") as file:
            file.truncate(len(content) - len(last))
    else:
        with path.open("ab") as file:
            file.write(b"\n")


def _append(path: Path, records: Iterable[Measurement]) -> None:
    lines = "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in records)
    if not lines:
        return
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
