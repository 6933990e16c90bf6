"""The machine of `pipeline` as a recurrence in Numba: equal to the reference to the cycle.

Each step of a tile ends at the latest of what it waits for plus its duration (a max-plus system),
so one pass over the tiles in order gives every time. The channels' program needs no sorting: what a
load waits for moves forward only, so four pointers merge it.
"""

from __future__ import annotations

import numba
import numpy as np

from hwsim.errors import InputError
from hwsim.pipeline.reference import simulate as simulate_events
from hwsim.pipeline.tiles import Machine, PipelineRun, Tiles

# Times are exact in int64 and in the float64 that bandwidths are divided in.
_LARGEST = 2**52

# What `recurrence` returns about the whole run, by position.
CYCLES, ARRAY, FILL, DRAIN, BYTES, FIRST_START, CHANNEL_MAX, STUCK, FIRST_WEIGHTS = range(9)


@numba.njit(cache=True, nogil=True)
def _serve(
    ready, n_bytes, first, free, busy, bytes_per_cycle, interleave, latency
):  # fmt: skip
    """One transfer through the channels: when its data are there, and where the next one begins."""
    channels = len(free)
    chunks = n_bytes // interleave
    rest = n_bytes - chunks * interleave
    share = chunks // channels
    more = chunks - share * channels
    # Only three sizes occur: a share, one chunk more, or the rest more.
    even = share * interleave
    even_cycles = np.int64(np.ceil(even / bytes_per_cycle))
    more_cycles = np.int64(np.ceil((even + interleave) / bytes_per_cycle)) if more else even_cycles
    rest_cycles = np.int64(np.ceil((even + rest) / bytes_per_cycle)) if rest else even_cycles
    last = ready
    for c in range(channels):
        place = c - first
        if place < 0:
            place += channels
        if place < more:
            cycles = more_cycles
        elif place == more:
            if even + rest == 0:
                continue
            cycles = rest_cycles
        else:
            if even == 0:
                continue
            cycles = even_cycles
        end = max(ready, free[c]) + cycles
        free[c] = end
        busy[c] += cycles
        last = max(last, end)
    used = chunks + (1 if rest else 0)
    return last + latency, (first + used) % channels


@numba.njit(inline="always")
def _room(sizes, tile, freed, resident, capacity):
    """The last tile that must leave a buffer for `tile` to come in, and the bytes then held."""
    resident += sizes[tile]
    while resident > capacity and freed + 1 < tile:
        freed += 1
        resident -= sizes[freed]
    return freed, resident


@numba.njit(cache=True, nogil=True)
def recurrence(
    weight, inputs, output, fill, compute, drain, after,
    channels, bytes_per_cycle, latency, interleave,
    weight_capacity, input_capacity, output_capacity, lookahead, arrays, shadow,
    finish, stored, busy,
):  # fmt: skip
    """Fills `finish`, `stored` (per tile) and `busy` (per channel); returns the totals.

    The first seven arguments are the columns of `Tiles`, the next ten describe the `Machine`.
    `FIRST_WEIGHTS` is how long the channels serve the first tile's weights. `STUCK` is −1, or
    3 · tile + (0 weight, 1 input, 2 output buffer too small).
    """
    count = len(weight)
    totals = np.zeros(9, np.int64)
    totals[STUCK] = -1
    free = np.zeros(channels, np.int64)
    busy[:] = 0
    times = np.empty((6, count), np.int64)  # each is written before it is read
    weight_done, input_done, store_done = times[0], times[1], times[2]
    start, filled = times[3], times[4]
    finished_all = times[5]  # when all tiles up to this one are finished
    w_next = i_next = 0
    w_freed = i_freed = o_freed = -1
    w_resident = i_resident = o_resident = np.int64(0)
    w_left = w_held = i_left = i_held = waits = np.int64(0)
    late = np.int64(-1)
    w_first = i_first = o_first = 0
    drained = np.int64(0)
    trigger = -1
    while True:
        # What the end of tile `trigger` lets through: loads by tile, its store, later inputs.
        for store_passed in range(2):
            if store_passed and trigger >= 0:
                drained = max(drained, finish[trigger]) + drain[trigger]
                ready = drained
                if output[trigger]:
                    ready, o_first = _serve(
                        ready, output[trigger], o_first, free, busy,
                        bytes_per_cycle, interleave, latency,
                    )  # fmt: skip
                store_done[trigger] = ready
                stored[trigger] = ready if trigger == 0 else max(ready, stored[trigger - 1])
            while True:
                loads_weight = loads_input = False
                w_begun = i_begun = -1
                if w_next < count:
                    w_left, w_held = _room(weight, w_next, w_freed, w_resident, weight_capacity)
                    w_begun = max(w_left, w_next - 1 - lookahead)
                    loads_weight = w_begun <= trigger
                if i_next < count:
                    i_left, i_held = _room(inputs, i_next, i_freed, i_resident, input_capacity)
                    i_begun = max(i_left, i_next - 1 - lookahead)
                    waits = max(late, after[i_next])
                    loads_input = max(i_begun, waits) <= trigger
                    if waits == trigger and waits >= max(i_begun, 0) and not store_passed:
                        loads_input = False
                if loads_weight and (not loads_input or w_next <= i_next):
                    if weight[w_next] > weight_capacity:
                        totals[STUCK] = 3 * w_next
                        return totals
                    w_freed, w_resident = w_left, w_held
                    ready = finished_all[w_begun] if w_begun >= 0 else np.int64(0)
                    if weight[w_next]:
                        ready, w_first = _serve(
                            ready, weight[w_next], w_first, free, busy,
                            bytes_per_cycle, interleave, latency,
                        )  # fmt: skip
                    if w_next == 0:
                        totals[FIRST_WEIGHTS] = busy.max()
                    weight_done[w_next] = ready
                    w_next += 1
                elif loads_input:
                    if inputs[i_next] > input_capacity:
                        totals[STUCK] = 3 * i_next + 1
                        return totals
                    i_freed, i_resident, late = i_left, i_held, waits
                    ready = finished_all[i_begun] if i_begun >= 0 else np.int64(0)
                    if after[i_next] >= 0:
                        ready = max(ready, store_done[after[i_next]])
                    if inputs[i_next]:
                        ready, i_first = _serve(
                            ready, inputs[i_next], i_first, free, busy,
                            bytes_per_cycle, interleave, latency,
                        )  # fmt: skip
                    input_done[i_next] = ready
                    i_next += 1
                else:
                    break
        t = trigger + 1
        if t == count:
            break
        # The next tile: filled, fed, on a free array, with room for its result.
        before = t - arrays
        begin = weight_done[t]
        if before >= 0:
            begin = max(begin, filled[before])
            begin = max(begin, start[before] if shadow else finish[before])
        filled[t] = begin + fill[t]
        begin = max(filled[t], input_done[t])
        if t > 0:
            begin = max(begin, start[t - 1])
        if before >= 0:
            begin = max(begin, finish[before])
        if output[t]:
            if output[t] > output_capacity:
                totals[STUCK] = 3 * t + 2
                return totals
            o_freed, o_resident = _room(output, t, o_freed, o_resident, output_capacity)
            if o_freed >= 0:
                begin = max(begin, stored[o_freed])
        start[t] = begin
        finish[t] = begin + compute[t]
        finished_all[t] = finish[t] if t == 0 else max(finish[t], finished_all[t - 1])
        totals[ARRAY] += compute[t]
        totals[FILL] += fill[t]
        totals[DRAIN] += drain[t]
        totals[BYTES] += weight[t] + inputs[t] + output[t]
        trigger = t
    totals[CYCLES] = stored[count - 1]
    totals[FIRST_START] = start[0]
    totals[CHANNEL_MAX] = busy.max()
    return totals


def accepts(machine: Machine, tiles: Tiles) -> bool:
    """Whether the recurrence may run these tiles: all its times stay exact."""
    work = sum(
        float(getattr(tiles, f"{part}_cycles").sum()) for part in ("fill", "compute", "drain")
    )
    moved = sum(
        float(getattr(tiles, f"{part}_bytes").sum()) for part in ("weight", "input", "output")
    )
    transfers = 3 * len(tiles)
    slowest = moved / machine.channel_bytes_per_cycle + transfers
    return work + moved + slowest + transfers * machine.latency_cycles < _LARGEST


def simulate(machine: Machine, tiles: Tiles, *, trace: bool = False) -> PipelineRun:
    """The same as `pipeline.simulate`, fast where it can be.

    A trace, a machine that comes to a halt, and times past 2⁵² cycles are left to the reference.

    Raises:
        InputError: as `pipeline.simulate`.
    """
    if trace or not accepts(machine, tiles):
        return simulate_events(machine, tiles, trace=trace)
    finish, stored = np.zeros(len(tiles), np.int64), np.zeros(len(tiles), np.int64)
    busy = np.zeros(machine.channels, np.int64)
    totals = recurrence(
        tiles.weight_bytes, tiles.input_bytes, tiles.output_bytes,
        tiles.fill_cycles, tiles.compute_cycles, tiles.drain_cycles, tiles.after,
        machine.channels, machine.channel_bytes_per_cycle, machine.latency_cycles,
        machine.interleave_bytes, machine.weight_buffer_bytes, machine.input_buffer_bytes,
        machine.output_buffer_bytes, machine.lookahead, machine.arrays, machine.shadow,
        finish, stored, busy,
    )  # fmt: skip
    if totals[STUCK] >= 0:
        simulate_events(machine, tiles)
        raise InputError(f"pipeline is stuck: {too_small(int(totals[STUCK]))}")
    parts = {"array": int(totals[ARRAY]), "fill": int(totals[FILL]), "drain": int(totals[DRAIN])}
    parts |= {f"channel {c}": int(cycles) for c, cycles in enumerate(busy)}
    return PipelineRun(
        int(totals[CYCLES]), parts, int(totals[BYTES]), finish, stored, int(totals[FIRST_START])
    )


def too_small(stuck: int) -> str:
    """What `STUCK` says, in words."""
    tile, which = divmod(stuck, 3)
    buffer = ("weight", "input", "output")[which]
    return f"{buffer}_buffer_bytes is smaller than tile {tile}"
