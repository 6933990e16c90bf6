"""The vocabulary of the pipeline: a machine, the tiles it runs, and what a run found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hwsim.checks import check_integer, check_number
from hwsim.errors import InputError

TILE_FIELDS = (
    "weight_bytes", "input_bytes", "output_bytes", "fill_cycles", "compute_cycles",
    "drain_cycles", "after",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What tiles contend for.

    Attributes:
        channels: DRAM channels.
        channel_bytes_per_cycle: of one channel; infinite for a machine that never waits for it.
        latency_cycles: from the end of a transfer's service to its data being there.
        interleave_bytes: consecutive bytes on one channel.
        weight_buffer_bytes, input_buffer_bytes, output_buffer_bytes: on chip.
        lookahead: tiles whose loads may be under way beyond the one that is to compute next; with 0
            a tile is loaded when the one before is finished.
        arrays: compute arrays; tile i runs on array i mod `arrays`.
        shadow: whether an array is filled for its next tile while it computes.
    """

    channels: int = 1
    channel_bytes_per_cycle: float = math.inf
    latency_cycles: int = 0
    interleave_bytes: int = 256
    weight_buffer_bytes: float = math.inf
    input_buffer_bytes: float = math.inf
    output_buffer_bytes: float = math.inf
    lookahead: int = 2
    arrays: int = 1
    shadow: bool = True

    def __post_init__(self) -> None:
        for name in ("channels", "interleave_bytes", "arrays"):
            value = getattr(self, name)
            check_integer(name, value, 1)
        check_number("channel_bytes_per_cycle", self.channel_bytes_per_cycle, above=0, finite=False)
        for name in ("latency_cycles", "lookahead"):
            value = getattr(self, name)
            check_integer(name, value, 0)
        for name in ("weight_buffer_bytes", "input_buffer_bytes", "output_buffer_bytes"):
            check_number(name, getattr(self, name), least=0, finite=False)

    def service_cycles(self, n_bytes: int) -> int:
        """Cycles for which one channel is busy with `n_bytes`."""
        return math.ceil(n_bytes / self.channel_bytes_per_cycle)


@dataclass(frozen=True)
class Tiles:
    """The work of one or more ops, tile by tile, in order.

    All arrays are int64 of the same length. `after[i]` is the tile whose stored result the inputs
    of tile i read (a tile of the op before it), or −1: weights never wait for a result, inputs do.
    """

    weight_bytes: np.ndarray
    input_bytes: np.ndarray
    output_bytes: np.ndarray
    fill_cycles: np.ndarray
    compute_cycles: np.ndarray
    drain_cycles: np.ndarray
    after: np.ndarray
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        length = None
        for name in TILE_FIELDS:
            given = np.asarray(getattr(self, name))
            if given.ndim != 1 or given.dtype.kind not in "iu":
                raise InputError(f"{name}: allowed is a one-dimensional array of integers")
            length = len(given) if length is None else length
            if len(given) != length:
                raise InputError(f"{name}: {len(given)} tiles; weight_bytes has {length}")
            lowest = -1 if name == "after" else 0
            if len(given) and given.min() < lowest:
                raise InputError(
                    f"{name}: smallest value is {given.min()}; allowed is at least {lowest}"
                )
            object.__setattr__(self, name, np.ascontiguousarray(given, dtype=np.int64))
        if not length:
            raise InputError("tiles: there are none; allowed is at least one")
        for i in np.flatnonzero(self.after >= np.arange(len(self))):
            raise InputError(
                f"after: tile {i} waits for tile {self.after[i]}; allowed is a tile before it"
            )

    def __len__(self) -> int:
        return len(self.weight_bytes)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], names: Sequence[str] = ()) -> Tiles:
        """From one row per tile: the fields in the order of TILE_FIELDS (`after` may be left out).

        >>> len(Tiles.of([(4, 4, 4, 1, 10, 1), (4, 4, 4, 1, 10, 1)]))
        2
        """
        full = [tuple(row) + (-1,) * (len(TILE_FIELDS) - len(row)) for row in rows]
        table = np.array(full, dtype=np.int64).reshape(len(full), len(TILE_FIELDS))
        return cls(*table.T, names=tuple(names))

    @classmethod
    def joined(cls, parts: Sequence[Tiles], *, dependent: bool = True) -> Tiles:
        """The ops one after the other; with `dependent`, inputs wait for the op before."""
        columns: dict[str, list[np.ndarray]] = {name: [] for name in TILE_FIELDS}
        names: list[str] = []
        start = 0
        for number, part in enumerate(parts):
            for name in TILE_FIELDS[:-1]:
                columns[name].append(getattr(part, name))
            own = np.where(part.after >= 0, part.after + start, -1)
            if dependent and start:
                own = np.where(own < 0, start - 1, own)
            columns["after"].append(own)
            names += part.names or [f"op {number}"] * len(part)
            start += len(part)
        return cls(*(np.concatenate(columns[n]) for n in TILE_FIELDS), names=tuple(names))


@dataclass(frozen=True)
class Event:
    """A resource was busy with a tile from `start` to `end` (cycles).

    `kind` is weight, input or output on a channel; fill; compute or "waits for …" on an array, the
    latter with what came last; drain on the output port.
    """

    resource: str
    kind: str
    tile: int
    start: int
    end: int


@dataclass(frozen=True)
class PipelineRun:
    """What a simulation found.

    Attributes:
        cycles: until the last result is stored.
        busy: cycles of work per resource: "array", "fill" and "drain" summed over the arrays,
            "channel i" for each DRAM channel.
        bytes_moved: through the channels.
        finish, stored: per tile, when the array was done and when its result was in DRAM.
        first_start: when the first tile began to compute.
        events: the trace, in order of start; empty unless asked for.
    """

    cycles: int
    busy: dict[str, int]
    bytes_moved: int
    finish: np.ndarray
    stored: np.ndarray
    first_start: int
    events: tuple[Event, ...] = field(default=(), repr=False)

    def occupancy(self, machine: Machine) -> dict[str, float]:
        """Busy share of each resource, 0 to 1."""
        whole = max(self.cycles, 1)
        shares = {name: cycles / whole for name, cycles in self.busy.items()}
        for name in ("array", "fill"):
            shares[name] /= machine.arrays
        return shares


def deal(n_bytes: int, first: int, channels: int, interleave: int) -> tuple[list[int], int]:
    """Bytes of a transfer on each channel, and the channel at which the next one begins.

    >>> deal(700, 1, 2, 256)
    ([256, 444], 0)
    """
    chunks, rest = divmod(n_bytes, interleave)
    share, more = divmod(chunks, channels)
    pieces = [share * interleave] * channels
    for c in range(more):
        pieces[(first + c) % channels] += interleave
    pieces[(first + more) % channels] += rest
    used = chunks + (1 if rest else 0)
    return pieces, (first + used) % channels
