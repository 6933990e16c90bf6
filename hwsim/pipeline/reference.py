"""The reference machine: tiles move DRAM → buffers → array → output, as processes that contend.

A tile is one turn of the array: its weights and inputs come from DRAM into two buffers, the
weights are filled into an array, the inputs stream through it, the result drains through the
output port into the output buffer and is stored to DRAM. Every step waits for what it needs:

- **DRAM channels**: a transfer is cut into chunks that are dealt to the channels in turn (address
  interleaving). A channel serves one piece at a time, in the order of the DMA program; the data
  are there `latency_cycles` after the last piece was served.
- **Buffers** hold whole tiles. A tile's place is free again when the array has finished it, and all
  tiles before it; so the loads run ahead of the array, as far as the buffers and the lookahead
  allow. With room for two tiles that is double buffering; across ops it is the prefetch of the next
  op's weights.
- **Arrays** take tiles in turn. With `shadow` registers the next tile is filled while one computes.
- **The output port** drains one tile at a time; a tile starts only when the output buffer has room
  for its result.

The DMA program (what the channels serve, and in which order) is fixed in advance, as a compiler
would do it. So the machine is a max-plus system: no duration that shrinks can make it slower, and
more bandwidth never hurts.

Time is in whole cycles. `fastpath` computes the same machine as a recurrence.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from hwsim.errors import InputError
from hwsim.pipeline.tiles import TILE_FIELDS, Event, Machine, PipelineRun, Tiles, deal

__all__ = ["TILE_FIELDS", "Event", "Machine", "PipelineRun", "Tiles", "deal", "simulate"]


class _Transfer:
    """One entry of the DMA program: bytes per channel, when it may start, when it is there."""

    __slots__ = ("done", "kind", "left", "pieces", "ready", "tile")

    def __init__(self, env: Any, kind: str, tile: int, pieces: list[int]) -> None:
        self.kind, self.tile, self.pieces = kind, tile, pieces
        self.ready, self.done = env.event(), env.event()
        self.left = sum(1 for p in pieces if p)


def simulate(machine: Machine, tiles: Tiles, *, trace: bool = False) -> PipelineRun:
    """Run the tiles through the machine, event by event.

    Raises:
        InputError: the machine comes to a halt before the last tile is done; the resource on which
            it waits is named (a buffer smaller than one tile).
    """
    return _Simulation(machine, tiles, trace).run()


class _Simulation:
    """The processes of one run. An event per step of each tile ties them together."""

    def __init__(self, machine: Machine, tiles: Tiles, trace: bool) -> None:
        import simpy

        self.simpy = simpy
        self.env = simpy.Environment()
        self.machine, self.tiles, self.trace = machine, tiles, trace
        self.count = len(tiles)
        self.waiting: dict[str, str] = {}
        self.busy: dict[str, int] = {"array": 0, "fill": 0, "drain": 0}
        self.busy |= {f"channel {c}": 0 for c in range(machine.channels)}
        self.events: list[Event] = []
        self.bytes_moved = 0
        self.filled, self.started, self.finished, self.retired, self.drained, self.reclaimed = (
            [self.env.event() for _ in range(self.count)] for _ in range(6)
        )
        self.finish = np.zeros(self.count, np.int64)
        self.stored = np.zeros(self.count, np.int64)
        self.first_start = 0
        # When each thing that a tile waits for was there, to name the last one in the trace.
        self.there = {
            cause: np.zeros(self.count, np.int64)
            for cause in ("weights", "fill", "inputs", "output space")
        }
        self.buffers = {kind: self._buffer(kind) for kind in ("weight", "input", "output")}
        self.transfers = {kind: self._transfers(kind) for kind in ("weight", "input", "output")}

    def run(self) -> PipelineRun:
        env = self.env
        for kind in ("weight", "input"):
            env.process(self._loader(kind))
        env.process(self._storer())
        env.process(self._reclaimer())
        env.process(self._output_reclaimer())
        env.process(self._drainer())
        for index in range(self.machine.arrays):
            env.process(self._filler(index))
        env.process(self._sequencer())
        program = self._program()
        for channel in range(self.machine.channels):
            env.process(self._channel(channel, program))
        env.run()
        if not self.reclaimed[-1].processed:
            stuck = self.waiting.get("buffer") or "; ".join(sorted(self.waiting.values()))
            raise InputError(f"pipeline is stuck at cycle {env.now}: {stuck}")
        self.events.sort(key=lambda e: (e.start, e.end, e.resource, e.tile))
        return PipelineRun(
            int(self.stored.max()), self.busy, self.bytes_moved, self.finish, self.stored,
            self.first_start, tuple(self.events),
        )  # fmt: skip

    def _buffer(self, kind: str) -> Any:
        # What is never filled is as good as infinite, and SimPy allows no capacity of zero; the
        # level is what counts, and that never exceeds ours.
        everything = int(getattr(self.tiles, f"{kind}_bytes").sum())
        capacity = min(getattr(self.machine, f"{kind}_buffer_bytes"), everything)
        return self.simpy.Container(self.env, capacity + 1, init=capacity)

    def _transfers(self, kind: str) -> list[_Transfer]:
        """Loads and stores each have their own running address."""
        first, transfers = 0, []
        for tile, n_bytes in enumerate(getattr(self.tiles, f"{kind}_bytes").tolist()):
            pieces, first = deal(
                n_bytes, first, self.machine.channels, self.machine.interleave_bytes
            )
            transfers.append(_Transfer(self.env, kind, tile, pieces))
        return transfers

    def _program(self) -> list[_Transfer]:
        """The order in which the channels serve: by the tile whose end lets a transfer begin."""
        keyed = []
        for order, kind in enumerate(("weight", "input")):
            sizes = getattr(self.tiles, f"{kind}_bytes").tolist()
            capacity = getattr(self.machine, f"{kind}_buffer_bytes")
            freed, resident, late = -1, 0, -1
            for tile, n_bytes in enumerate(sizes):
                resident += n_bytes
                while resident > capacity and freed + 1 < tile:
                    freed += 1
                    resident -= sizes[freed]
                begun = max(freed, tile - 1 - self.machine.lookahead, -1)
                late = max(late, int(self.tiles.after[tile]) if kind == "input" else -1)
                slot = 3 if late >= max(begun, 0) else 0
                keyed.append((max(begun, late), slot, tile, order, self.transfers[kind][tile]))
        keyed += [(t.tile, 2, t.tile, 0, t) for t in self.transfers["output"]]
        keyed.sort(key=lambda entry: entry[:4])
        return [entry[4] for entry in keyed]

    def _work(self, resource: str, kind: str, tile: int, cycles: int, counter: str) -> Generator:
        start = self.env.now
        if cycles:
            yield self.env.timeout(cycles)
        self.busy[counter] += cycles
        if self.trace and cycles:
            self.events.append(Event(resource, kind, tile, int(start), int(self.env.now)))

    def _channel(self, channel: int, program: list[_Transfer]) -> Generator:
        """Serves its pieces of the program in order."""
        name = f"channel {channel}"
        for transfer in program:
            n_bytes = transfer.pieces[channel]
            if not n_bytes:
                continue
            self.waiting[name] = f"{name} waits for the {transfer.kind}s of tile {transfer.tile}"
            yield transfer.ready
            self.waiting.pop(name)
            cycles = self.machine.service_cycles(n_bytes)
            yield from self._work(name, transfer.kind, transfer.tile, cycles, name)
            self.bytes_moved += n_bytes
            transfer.left -= 1
            if not transfer.left:
                self.env.process(self._arrive(transfer))

    def _arrive(self, transfer: _Transfer) -> Generator:
        yield self.env.timeout(self.machine.latency_cycles)
        self._complete(transfer)

    def _complete(self, transfer: _Transfer) -> None:
        if transfer.kind != "output":
            self.there[f"{transfer.kind}s"][transfer.tile] = self.env.now
        transfer.done.succeed()

    def _allow(self, transfer: _Transfer) -> None:
        """The transfer may be served; one of no bytes is there at once."""
        transfer.ready.succeed()
        if not transfer.left:
            self._complete(transfer)

    def _take(self, kind: str, tile: int, n_bytes: int) -> Generator:
        if n_bytes:
            name = f"{kind}_buffer_bytes"
            capacity = getattr(self.machine, name)
            reason = f"tile {tile} needs {n_bytes} bytes; {name} is {capacity:g}"
            key = "buffer" if n_bytes > capacity else f"{kind} space"
            self.waiting[key] = reason
            yield self.buffers[kind].get(n_bytes)
            self.waiting.pop(key)

    def _loader(self, kind: str) -> Generator:
        """Asks for tile after tile as soon as the buffer has room; inputs also wait for `after`."""
        for tile, transfer in enumerate(self.transfers[kind]):
            yield from self._take(kind, tile, sum(transfer.pieces))
            begun = tile - 1 - self.machine.lookahead
            if begun >= 0:
                yield self.retired[begun]
            after = int(self.tiles.after[tile])
            if kind == "input" and after >= 0:
                self.env.process(self._allow_later(transfer, after))
            else:
                self._allow(transfer)

    def _allow_later(self, transfer: _Transfer, after: int) -> Generator:
        yield self.transfers["output"][after].done
        self._allow(transfer)

    def _reclaimer(self) -> Generator:
        """Gives a tile's place in the input-side buffers back when all up to it are finished."""
        for tile in range(self.count):
            yield self.finished[tile]
            for kind in ("weight", "input"):
                n_bytes = sum(self.transfers[kind][tile].pieces)
                if n_bytes:
                    yield self.buffers[kind].put(n_bytes)
            self.retired[tile].succeed()

    def _output_reclaimer(self) -> Generator:
        """Gives back the output buffer in order, when the stores are done."""
        for tile, transfer in enumerate(self.transfers["output"]):
            yield transfer.done
            self.stored[tile] = self.env.now
            n_bytes = sum(transfer.pieces)
            if n_bytes:
                yield self.buffers["output"].put(n_bytes)
            self.reclaimed[tile].succeed()

    def _filler(self, index: int) -> Generator:
        """Fills one array's registers with the weights of its tiles."""
        for tile in range(index, self.count, self.machine.arrays):
            before = tile - self.machine.arrays
            yield self.transfers["weight"][tile].done
            if before >= 0:
                yield self.started[before] if self.machine.shadow else self.finished[before]
            cycles = int(self.tiles.fill_cycles[tile])
            yield from self._work(f"fill {index}", "fill", tile, cycles, "fill")
            self.there["fill"][tile] = self.env.now
            self.filled[tile].succeed()

    def _sequencer(self) -> Generator:
        """Starts the tiles in order; each then computes on its own array."""
        for tile in range(self.count):
            yield from self._take("output", tile, int(self.tiles.output_bytes[tile]))
            self.there["output space"][tile] = self.env.now
            yield self.filled[tile] & self.transfers["input"][tile].done
            before = tile - self.machine.arrays
            if before >= 0:
                yield self.finished[before]
            if tile == 0:
                self.first_start = int(self.env.now)
            if self.trace:
                self._note_wait(tile, int(self.finish[before]) if before >= 0 else 0)
            self.started[tile].succeed()
            self.env.process(self._compute(tile))

    def _note_wait(self, tile: int, free_at: int) -> None:
        """Why the array stood still before this tile: the last of what it needed."""
        if self.env.now <= free_at:
            return
        last = {cause: int(times[tile]) for cause, times in self.there.items()}
        if last["fill"] == last["weights"]:
            last.pop("fill")
        cause = max(last, key=last.__getitem__)
        spans = [(cause, free_at, int(self.env.now))]
        if cause == "fill" and last["weights"] > free_at:  # it begins when the weights are there
            spans = [
                ("weights", free_at, last["weights"]), ("fill", last["weights"], int(self.env.now))
            ]  # fmt: skip
        array = f"array {tile % self.machine.arrays}"
        self.events += [Event(array, f"waits for {why}", tile, a, b) for why, a, b in spans]

    def _compute(self, tile: int) -> Generator:
        index = tile % self.machine.arrays
        cycles = int(self.tiles.compute_cycles[tile])
        yield from self._work(f"array {index}", "compute", tile, cycles, "array")
        self.finish[tile] = self.env.now
        self.finished[tile].succeed()

    def _drainer(self) -> Generator:
        """The output port: one tile at a time, in order."""
        for tile in range(self.count):
            yield self.finished[tile]
            cycles = int(self.tiles.drain_cycles[tile])
            yield from self._work("output port", "drain", tile, cycles, "drain")
            self.drained[tile].succeed()

    def _storer(self) -> Generator:
        for tile, transfer in enumerate(self.transfers["output"]):
            yield self.drained[tile]
            self._allow(transfer)
