"""One real kernel, timed: the record that calibration and cross-check read and write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.errors import InputError, unknown
from hwsim.files import parse_json, read_text, replacing
from hwsim.workload import DTYPE_BYTES, PHASES

CACHE_STATES = ("warm", "cold")
_LARGEST_BYTES = 256 << 20
_LARGEST_INTEGER = 2**62
_SHORTEST_S, _LONGEST_S = 1e-12, 1e9
STEP = "step"  # the phase of a record that timed a whole training step


@dataclass(frozen=True, slots=True)
class Measurement:
    """One kernel timed on one machine, at one size.

    Attributes:
        machine, toolchain: what ran it; free text ("NVIDIA H100 PCIe", "cuSPARSELt 0.8").
        kernel: the name that a device model gives the kernel ("dense", "2:4", "csr", …).
        phase: one of workload.PHASES, or "step": a whole training step.
        m, n, k: rows, outputs and inputs of the layer, as in `hwsim.gemm`; of a step rows, width
            and number of layers.
        dtype: of the operands.
        median_s, min_s, low_quartile_s, high_quartile_s: seconds of one call. A record that knows
            the median alone repeats it.
        rounds: how many samples the median is of.
        density: active share of the weight.
        mask_digest, row_nnz_mean, row_nnz_max: of the mask; empty and 0 where there was none.
        weight_lines, lookup_steps: of the mask too, see `hwsim.cpu.costs`; 0 where nobody counted
            them.
        cache: "warm" or "cold", the last-level cache before each call.
        threads: that the kernel used, 1 on a GPU.
        graph: replayed from a captured graph, so that no launch by the host is in the time.
        packing: whether the values were packed anew inside the timed region.

    Raises:
        InputError: a size below 1, a time that is not positive, an unknown phase, dtype or state.
    """

    machine: str
    toolchain: str
    kernel: str
    phase: str
    m: int
    n: int
    k: int
    dtype: str
    median_s: float
    min_s: float
    low_quartile_s: float
    high_quartile_s: float
    rounds: int
    density: float = 1.0
    mask_digest: str = ""
    row_nnz_mean: float = 0.0
    row_nnz_max: int = 0
    weight_lines: int = 0
    lookup_steps: int = 0
    cache: str = "warm"
    threads: int = 1
    graph: bool = False
    packing: bool = False

    def __post_init__(self) -> None:
        for name in ("m", "n", "k", "rounds", "threads"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < _LARGEST_INTEGER:
                raise InputError(
                    f"measurement: {name} is {_short(value)}; allowed is an integer from 1 to 2^62"
                )
        for name in ("row_nnz_max", "weight_lines", "lookup_steps"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < _LARGEST_INTEGER:
                raise InputError(
                    f"measurement: {name} is {_short(value)}; allowed is an integer from 0 to 2^62"
                )
        for name in ("graph", "packing"):
            if not isinstance(getattr(self, name), bool):
                value = _short(getattr(self, name))
                raise InputError(f"measurement: {name} is {value}; allowed is true or false")
        for name in ("median_s", "min_s", "low_quartile_s", "high_quartile_s"):
            value = getattr(self, name)
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not good or not _SHORTEST_S <= value <= _LONGEST_S:
                raise InputError(
                    f"measurement: {name} is {_short(value)}; allowed is a time above 0, from "
                    f"{_SHORTEST_S:g} to {_LONGEST_S:g} s"
                )
        if not self.min_s <= self.low_quartile_s <= self.median_s <= self.high_quartile_s:
            raise InputError(
                f"measurement: min_s {self.min_s!r}, low_quartile_s {self.low_quartile_s!r}, "
                f"median_s {self.median_s!r}, high_quartile_s {self.high_quartile_s!r}; "
                "allowed is this order, none below the one before"
            )
        for name, most in (("density", 1.0), ("row_nnz_mean", 2.0**62)):
            value = getattr(self, name)
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not good or not 0.0 <= value <= most:
                raise InputError(
                    f"measurement: {name} is {_short(value)}; allowed is 0 to {most:g}"
                )
        for name, allowed in (
            ("phase", (*PHASES, STEP)), ("dtype", tuple(DTYPE_BYTES)), ("cache", CACHE_STATES),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise InputError(f"measurement: {unknown(name, getattr(self, name), allowed)}")
        for name in ("machine", "toolchain", "kernel"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise InputError(
                    f"measurement: {name} is {_short(getattr(self, name))}; allowed is text"
                )
        if not isinstance(self.mask_digest, str):
            raise InputError(
                f"measurement: mask_digest is {_short(self.mask_digest)}; allowed is text"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, n, k): what a fit and its held-out part are divided by."""
        return self.m, self.n, self.k

    @classmethod
    def of_median(cls, seconds: float, **fields: Any) -> Measurement:
        """A record of which only the median is known."""
        return cls(
            median_s=seconds, min_s=seconds, low_quartile_s=seconds, high_quartile_s=seconds,
            **fields,
        )  # fmt: skip


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "an integer of thousands of digits"
    return text if len(text) <= 60 else f"{text[:40]}…"


_FIELDS = {f.name: f for f in dataclasses.fields(Measurement)}


def read_measurements(path: str | Path) -> list[Measurement]:
    """The records of a JSON Lines file, one object a line; empty lines are skipped.

    Raises:
        InputError: unreadable file or broken record; file and line are named.
    """
    lines = read_text(Path(path), f"measurements {path}", _LARGEST_BYTES).split("\n")
    return [_parsed(f"{path}:{i}", line) for i, line in enumerate(lines, 1) if line.strip()]


def write_measurements(path: str | Path, records: Iterable[Measurement]) -> None:
    """Writes a JSON Lines file whole or not at all.

    Raises:
        InputError: the folder is not there or cannot be written to.
    """
    write_whole(
        path, (json.dumps(dataclasses.asdict(r), ensure_ascii=False) + "\n" for r in records)
    )


def write_whole(path: str | Path, lines: Iterable[str]) -> None:
    """Writes a text file whole or not at all: temporary name, fsync, rename."""
    with replacing(Path(path)) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def parse_measurement(where: str, line: str) -> Measurement:
    """The record of one line.

    Raises:
        InputError: it is none; `where` is said.
    """
    return _parsed(where, line)


def _parsed(where: str, line: str) -> Measurement:
    record = parse_json(line, where)
    if not isinstance(record, dict):
        raise InputError(f"{where}: {type(record).__name__}; allowed is one object a line")
    for key in record:
        if key not in _FIELDS:
            raise InputError(f"{where}: {unknown('key', key, tuple(_FIELDS))}")
    for name, spec in _FIELDS.items():
        if spec.default is dataclasses.MISSING and name not in record:
            raise InputError(f"{where}: key {name!r} is missing")
    try:
        return Measurement(**record)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
