"""Kernels on learnt masks in words: a table for the terminal, a Markdown page with its table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.comparing.out import pipes
from analysis.measuring.learnt import TimedLayer
from hwsim import units

KIND = "measure cpu"
COLUMNS = (
    "masks", "batch", "layers", "empty outputs", "widest / mean", "kernel", "over dense",
    "over CSR", "drawn: over dense", "drawn: over CSR",
)  # fmt: skip


@dataclass(frozen=True)
class KernelGroup:
    """Layers of one algorithm, density and batch; ratios are geometric means over layers."""

    algorithm: str
    density: float
    batch: int
    learnt: tuple[TimedLayer, ...]
    drawn: tuple[TimedLayer, ...]


def groups(rows: Sequence[TimedLayer]) -> list[KernelGroup]:
    """By algorithm, then density from dense to sparse, then batch."""
    found: dict[tuple[str, float, int], list[TimedLayer]] = {}
    for row in rows:
        # Rounding of single layers is no other density.
        key = (row.algorithm, -float(f"{row.density:.1g}"), row.batch)
        found.setdefault(key, []).append(row)
    return [
        KernelGroup(
            algorithm, -density, batch, tuple(r for r in own if not r.drawn),
            tuple(r for r in own if r.drawn),
        )
        for (algorithm, density, batch), own in sorted(found.items())
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else math.nan


def _times(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{_mean(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def cells(group: KernelGroup) -> list[str]:
    """A line: ratios as mean (least–most) over layers."""
    learnt, drawn = group.learnt, group.drawn
    empty = sum(row.empty for row in learnt) / sum(row.shape[0] for row in learnt)
    uneven = _mean([row.widest * row.shape[0] / row.nnz for row in learnt])
    return [
        f"{group.algorithm} {units.percent(group.density)}", str(group.batch), str(len(learnt)),
        units.percent(empty), f"{uneven:.1f}", ", ".join(dict.fromkeys(r.best for r in learnt)),
        _times([row.over_dense for row in learnt]), _times([row.over_csr for row in learnt]),
        _times([row.over_dense for row in drawn]), _times([row.over_csr for row in drawn]),
    ]  # fmt: skip


def sentences(rows: Sequence[TimedLayer]) -> list[str]:
    """What was found, one for each algorithm, density and batch."""
    return [
        f"{group.algorithm} at {units.percent(group.density)}, "
        f"{'one sample' if group.batch == 1 else f'{group.batch} samples'}: the best kernel is "
        f"{_mean([r.over_dense for r in group.learnt]):.1f} times as fast as the best dense "
        f"library and {_mean([r.over_csr for r in group.learnt]):.1f} times as fast as the best "
        "CSR library."
        for group in groups(rows)
    ]


NOTE = (
    "Forward products of single layers, float32, one thread, by its own processor time; medians of "
    "shuffled rounds. Dense: the faster of numpy and torch; CSR: the faster of scipy and torch. "
    "Ratios are geometric means over layers with the least and the most. *Drawn* masks have as "
    "many weights in random places: where they differ from learnt ones, it is by what was learnt. "
    "Widest / mean: weights of the fullest output over the mean; 1 is constant fan-in."
)


@dataclass(frozen=True)
class KernelsPage:
    """What was timed, with what its page says beside it."""

    rows: tuple[TimedLayer, ...]
    title: str
    command: str
    machine: str
    remarks: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """The page as Markdown."""
        unsteady = sum(not row.steady for row in self.rows)
        parts = [
            f"# {self.title}",
            "\n".join(f"- {line}" for line in sentences(self.rows)),
            f"Written by this command:\n\n    {self.command}",
            f"On {self.machine}.", *self.remarks,
            pipes(COLUMNS, [cells(group) for group in groups(self.rows)]),
            NOTE,
            *([f"Of {len(self.rows)} timings, {unsteady} were disturbed by something else."]
              if unsteady else []),
        ]  # fmt: skip
        return "\n\n".join(parts) + "\n"

    def content(self) -> dict[str, Any]:
        """As JSON takes it."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"kind": KIND, **said, "rows": [dataclasses.asdict(row) for row in self.rows]}


def loaded(content: Mapping[str, Any]) -> KernelsPage:
    """What `Stored.content` told.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or of another type.
    """
    rows = []
    for row in content["rows"]:
        given: dict[str, Any] = {**row, "shape": tuple(row["shape"])}
        rows.append(TimedLayer(**given))
    return KernelsPage(
        tuple(rows),
        content["title"],
        content["command"],
        content["machine"],
        tuple(content["remarks"]),
    )
