"""Clusters on a flexible reduction tree: which node finishes a sum, when, and through which port.

The machine is SIGMA's, in the form that STONNE runs: a row of multipliers (a power of two) under a
binary adder tree whose neighbours of different parents are joined by forwarding links, so that any
run of multipliers can be summed on its own. The nonzeros of whole rows of the stationary matrix are
put into the multipliers in order; a row that fits no longer starts the next wave, and a row longer
than the array is folded, each further fold giving one multiplier to the partial sum. Then vectors
of the other matrix stream through; each wave waits for its last result.

Sources: Qin et al. (2020), "SIGMA", HPCA, section IV (flexible clusters, forwarding adders); Kwon
et al. (2018), "MAERI", ASPLOS, section 4 (forwarding links); Muñoz-Martínez et al. (2021),
"STONNE", IISWC (the controller and its write-back). Cycle counts were held against STONNE's.
"""

from __future__ import annotations

import numba
import numpy as np

# From this many vectors on, a wave is in its steady state between start and end.
_STEADY = 48


@numba.njit(cache=True, nogil=True)
def sum_node(levels, begin, end):
    """Where multipliers [begin, end) become one sum: (level, node in the level, cycles).

    A node adds what its children send in one cycle. A boundary node whose neighbour has another
    parent sends its part over the forwarding link instead of upwards, which takes one cycle more.
    """
    low, high = begin, end - 1
    t_low = t_mid = t_high = 0
    level = levels
    while True:
        level -= 1
        up_low, up_high = low >> 1, high >> 1
        if up_low == up_high:
            return level, up_low, max(t_low, t_high) + 1
        two_low, two_high = low & 1 == 0, high & 1 == 1
        f_low = (max(t_low, t_mid) if two_low else t_low) + 1
        f_high = (max(t_high, t_mid) if two_high else t_high) + 1
        f_mid = t_mid + 1
        low, high = up_low, up_high
        if low & 1:  # its right neighbour has another parent
            if low + 1 == high:
                if two_low or not two_high:
                    return level, low, max(f_low, f_high + 1)
                return level, high, max(f_high, f_low + 1)
            f_low = max(f_mid, f_low + 1)
            low += 1
        if high & 1 == 0 and high > low:
            f_high = max(f_mid, f_high + 1)
            high -= 1
        t_low, t_mid, t_high = f_low, f_mid, f_high


@numba.njit(cache=True, nogil=True)
def output_port(levels, level, node, ports):
    """The port at which a node's results leave.

    Nodes joined by a forwarding link share a port. Pairs are dealt to the ports level by level
    from the root, then the nodes without a link (the outermost of each level).
    """
    last = (1 << level) - 1
    if level > 0 and node > 0 and node < last:
        before = (1 << (level - 1)) - level
        return (before + ((node + 1) >> 1) - 1) % ports
    pairs = (1 << (levels - 1)) - levels
    single = 0 if level == 0 else 2 * level - (1 if node == 0 else 0)
    return (2 * pairs + single) % ports


@numba.njit(cache=True, nogil=True)
def delays_by_size(multipliers):
    """Cycles until a cluster of each size is summed that starts at multiplier 0."""
    levels = 0
    while (1 << levels) < multipliers:
        levels += 1
    delay_of = np.zeros(multipliers + 1, np.int64)
    for size in range(1, multipliers + 1):
        delay_of[size] = sum_node(levels, 0, size)[2]
    return delay_of


@numba.njit(cache=True, nogil=True)
def _drained(backlog):
    """Cycles in which a write-back that takes half of what waits, rounded up, empties."""
    cycles = 0
    while backlog:
        backlog >>= 1
        cycles += 1
    return cycles


@numba.njit(cache=True, nogil=True)
def wave_by_cycles(delays, lines, clusters, vectors, step, lead):
    """Cycles of one wave, counted cycle by cycle.

    Vector v of cluster i reaches its port at lead + delays[i] + step · v. A port passes one result
    a cycle on; the write-back retires half of what it holds, rounded up, each cycle.
    """
    waiting = np.zeros(lines[:clusters].max() + 1, np.int64)
    total, retired, backlog, now = clusters * vectors, 0, 0, 0
    while retired < total:
        now += 1
        for i in range(clusters):
            since = now - lead - delays[i]
            if since >= 0 and since % step == 0 and since // step < vectors:
                waiting[lines[i]] += 1
        for port in range(len(waiting)):
            if waiting[port]:
                waiting[port] -= 1
                backlog += 1
        out = (backlog + 1) >> 1
        retired += out
        backlog -= out
    return now + 1


@numba.njit(cache=True, nogil=True)
def wave_cycles(delays, lines, clusters, vectors, step, lead, load, first, used):
    """Cycles of one wave: the same as `wave_by_cycles`, in closed form where that is exact.

    With one vector a cycle each port is busy without a gap from its first result on, so it ends
    after (results a vector) · vectors cycles; the write-back's backlog at the end follows from the
    number of busy ports. Otherwise, or for few vectors, the start is counted by cycle and the rest
    is periodic. `load`, `first`, `used` are scratch arrays with an entry per port.
    """
    ports = 0
    heaviest = 0
    for i in range(clusters):
        port = lines[i]
        if load[port] == 0:
            used[ports] = port
            first[port] = delays[i]
            ports += 1
        load[port] += 1
        first[port] = min(first[port], delays[i])
        heaviest = max(heaviest, load[port])
    if step > 1 or vectors < _STEADY:
        for p in range(ports):
            load[used[p]] = 0
        counted = min(vectors, _STEADY)
        cycles = wave_by_cycles(delays, lines, clusters, counted, step, lead)
        return cycles + (vectors - counted) * max(step, heaviest)
    # The last cycle of each port, in order; they take the places of the ports in `used`.
    for p in range(ports):
        port = used[p]
        end = lead + first[port] + load[port] * vectors - 1
        load[port] = 0
        q = p
        while q > 0 and used[q - 1] > end:
            used[q] = used[q - 1]
            q -= 1
        used[q] = end
    backlog = ports - 1
    for p in range(1, ports):
        active = ports - p
        for _ in range(min(used[p] - used[p - 1], 16)):
            backlog = (backlog + active) >> 1
    return used[ports - 1] + _drained(backlog) + 1


@numba.njit(inline="always")
def _emit(again, took, units, cycles, in_round, round_cycles):
    """`again` waves of `took` cycles to the next units; a full round adds its longest wave."""
    round_cycles = max(round_cycles, took)
    in_round += again
    if in_round >= units:
        cycles += round_cycles
        in_round -= units
        round_cycles = np.int64(0)
        if in_round >= units:
            cycles += in_round // units * took
            in_round %= units
        if in_round:
            round_cycles = np.int64(took)
    return cycles, in_round, round_cycles


@numba.njit(cache=True, nogil=True)
def pack(
    sizes, streams, multipliers, levels, delay_of, ports, step, lead, units, target,
    tile_elements, tile_cycles, tile_rows, tile_outputs, facts,
):  # fmt: skip
    """Packs rows into waves, waves onto units, rows into tiles; fills the four tile arrays.

    Args:
        sizes: multipliers that each row needs (its nonzeros); an empty row costs nothing.
        delay_of: cycles of `sum_node` for a cluster of each size that starts at multiplier 0.
        streams: vectors that each row meets. A wave streams as many as its longest row asks for.
        units: multiplier rows that work side by side on consecutive waves, in step: a round takes
            as long as its longest wave.
        target: elements after which a tile is closed (at the end of a row).
        facts: filled with waves, folded rows, cycles of the longest wave, clusters, cycles in which
            waves waited for output ports, cycles of all waves.

    Returns:
        How many tiles there are.
    """
    load, first, used = (
        np.zeros(ports, np.int64), np.zeros(ports, np.int64), np.zeros(ports, np.int64),
    )  # fmt: skip
    delays, lines = np.zeros(multipliers, np.int64), np.zeros(multipliers, np.int64)
    ends = np.zeros(multipliers, np.int64)
    per_fold = 1.0 / max(multipliers - 1, 1)
    clusters = filled = 0
    vectors = np.int64(0)
    in_round, round_cycles = 0, np.int64(0)
    elements, cycles, outputs, rows, tile = np.int64(0), np.int64(0), np.int64(0), 0, 0
    waves = folded = all_clusters = 0
    longest = lost = all_cycles = np.int64(0)
    count = len(sizes)
    for r in range(count + 1):
        size = sizes[r] if r < count else 0
        stream = streams[r] if r < count else np.int64(0)
        if stream == 0:
            size = 0
        closes = r == count or filled + size > multipliers
        if closes and clusters:
            took = lead + delay_of[ends[0]] + step * (vectors - 1) + 1
            if clusters > 1:
                begin = 0
                slowest = 0
                for i in range(clusters):
                    level, node, delays[i] = sum_node(levels, begin, ends[i])
                    lines[i] = output_port(levels, level, node, ports)
                    slowest = max(slowest, delays[i])
                    begin = ends[i]
                free = lead + slowest + step * (vectors - 1) + 1
                took = wave_cycles(delays, lines, clusters, vectors, step, lead, load, first, used)
                lost += took - free
            waves += 1
            all_clusters += clusters
            all_cycles += took
            longest = max(longest, took)
            cycles, in_round, round_cycles = _emit(1, took, units, cycles, in_round, round_cycles)
            clusters = filled = 0
            vectors = np.int64(0)
        if r == count:
            break
        if size > multipliers:
            folded += 1
            # The first fold is full; each further one has a multiplier less for the elements.
            left = size - multipliers
            whole = np.int64(left * per_fold)  # a division, at the price of a multiplication
            rest = left - whole * (multipliers - 1)
            if rest < 0:
                whole, rest = whole - 1, rest + multipliers - 1
            elif rest >= multipliers - 1:
                whole, rest = whole + 1, rest - multipliers + 1
            took = lead + delay_of[multipliers] + step * (stream - 1) + 1
            longest = max(longest, took)
            waves += 1 + whole + (1 if rest else 0)
            all_clusters += 1 + whole + (1 if rest else 0)
            all_cycles += (1 + whole) * took
            cycles, in_round, round_cycles = _emit(
                1 + whole, took, units, cycles, in_round, round_cycles
            )
            if rest:
                narrow = min(step, rest + 1)
                took = lead - 2 * (step - narrow) + delay_of[rest + 1] + narrow * (stream - 1) + 1
                all_cycles += took
                cycles, in_round, round_cycles = _emit(
                    1, took, units, cycles, in_round, round_cycles
                )
        elif size:
            filled += size
            ends[clusters] = filled
            clusters += 1
            vectors = max(vectors, stream)
        elements += size
        outputs += stream
        rows += 1
        if elements >= target and r + 1 < count:
            tile_elements[tile], tile_cycles[tile] = elements, cycles
            tile_rows[tile], tile_outputs[tile] = rows, outputs
            tile += 1
            elements, cycles, outputs, rows = np.int64(0), np.int64(0), np.int64(0), 0
    tile_elements[tile], tile_cycles[tile] = elements, cycles + round_cycles
    tile_rows[tile], tile_outputs[tile] = rows, outputs
    facts[0], facts[1], facts[2] = waves, folded, longest
    facts[3], facts[4], facts[5] = all_clusters, lost, all_cycles
    return tile + 1
