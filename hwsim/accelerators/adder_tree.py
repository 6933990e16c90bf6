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


# What `pack` counts, by position in `facts`.
WAVES, FOLDED, LONGEST, CLUSTERS, PORT_CYCLES, WAVE_CYCLES = range(6)


@numba.njit(inline="always")
def _round(in_round, units, longest, slowest, cycles, took):
    """Ends a round: it took as long as its longest wave; waves of `took` cycles may be left over.

    Waves in the open round, the longest of them, the longest of all, and cycles so far.
    """
    slowest = max(slowest, longest)
    cycles += longest
    in_round -= units
    if in_round >= units:
        cycles += in_round // units * took
        in_round %= units
    return in_round, took if in_round else np.int64(0), slowest, cycles


@numba.njit(cache=True, nogil=True)
def _shared_wave(ends, clusters, vectors, levels, ports, step, lead, scratch):
    """Cycles of a wave of several clusters, which end at the multipliers `ends`.

    Also those of them in which results waited for a port.
    """
    delays, lines, load, first, used = scratch
    begin = slowest = 0
    for i in range(clusters):
        level, node, delays[i] = sum_node(levels, begin, ends[i])
        lines[i] = output_port(levels, level, node, ports)
        slowest = max(slowest, delays[i])
        begin = ends[i]
    took = wave_cycles(delays, lines, clusters, vectors, step, lead, load, first, used)
    return took, took - (lead + slowest + step * (vectors - 1) + 1)


@numba.njit(inline="always")
def _folds(size, multipliers, per_fold):
    """Full folds after the first, each with one multiplier less, and elements of the last one."""
    left = size - multipliers
    whole = np.int64(left * per_fold)  # a division, at the price of a multiplication
    rest = left - whole * (multipliers - 1)
    if rest < 0:
        return whole - 1, rest + multipliers - 1
    if rest >= multipliers - 1:
        return whole + 1, rest - multipliers + 1
    return whole, rest


@numba.njit(cache=True, nogil=True)
def _close(tiles, tile, elements, cycles, streams):
    """One column of `tiles`: elements, cycles, rows, outputs."""
    tiles[0, tile], tiles[1, tile] = elements, cycles
    tiles[2, tile], tiles[3, tile] = len(streams), streams.sum()


@numba.njit(cache=True, nogil=True)
def pack(
    sizes, streams, multipliers, levels, delay_of, ports, step, lead, units, target, tiles, facts
):  # fmt: skip
    """Packs rows into waves, waves onto units, rows into tiles; returns the number of tiles.

    Args:
        sizes: multipliers that each row needs (its nonzeros); an empty row costs nothing.
        streams: vectors that each row meets. A wave streams as many as its longest row asks for.
        delay_of: cycles of `sum_node` for a cluster of each size that starts at multiplier 0.
        units: multiplier rows that work side by side on consecutive waves, in step: a round takes
            as long as its longest wave.
        target: elements after which a tile is closed (at the end of a row).
        tiles: filled, one column per tile: elements, cycles, rows, outputs.
        facts: filled with waves, folded rows, cycles of the longest wave, clusters, cycles in which
            waves waited for output ports, cycles of all waves.
    """
    scratch = np.zeros((5, max(ports, multipliers)), np.int64)
    parts = (scratch[0], scratch[1], scratch[2], scratch[3], scratch[4])
    ends = np.zeros(multipliers + 1, np.int64)
    # Three kinds of rows have a loop each, and what is cheap to derive is not carried along: the
    # variables of a loop must fit the registers.
    count = len(sizes)
    cycles = in_round = longest = slowest = in_waves = np.int64(0)  # longest: of the open round
    waves = folded = folds = rows = at_ports = elements = begun = np.int64(0)
    alone = lead + 1 - step  # a wave of one cluster takes this, its delay and step · vectors
    full = alone + delay_of[multipliers]
    per_fold = 1.0 / max(multipliers - 1, 1)
    known = whole = rest = narrow = final = np.int64(0)  # of the row that was folded last
    tile = first_row = r = 0
    while r < count:
        # Rows alone in their wave, up to the end of the round or of the tile.
        start, end = r, min(count - 1, r + units - in_round)
        size = sizes[r] if streams[r] else np.int64(0)
        while r < end and elements < target:
            after = np.uint64(r + 1)  # unsigned: such places need no test for being negative
            beside = sizes[after] if streams[after] else np.int64(0)
            if size > multipliers or size + beside <= multipliers or size == 0:
                break
            took = alone + delay_of[np.uint64(size)] + step * streams[np.uint64(r)]
            in_waves += took
            longest = max(longest, took)
            elements += size
            size = beside
            r += 1
        waves += r - start
        rows += r - start
        in_round += r - start
        if elements >= target:
            _close(tiles, tile, elements, cycles - begun, streams[first_row:r])
            elements, begun, first_row = np.int64(0), cycles, r
            tile += 1
        if in_round == units:
            in_round, longest, slowest, cycles = _round(
                in_round, units, longest, slowest, cycles, longest
            )
        # Rows that share a wave.
        clusters = filled = 0
        vectors = np.int64(0)
        while r < count:
            stream = streams[r]
            size = sizes[r] if stream else np.int64(0)
            if filled + size > multipliers:
                break
            if size:
                filled += size
                ends[clusters] = filled
                clusters += 1
                vectors = max(vectors, stream)
                elements += size
            r += 1
            if elements >= target and r < count:
                _close(tiles, tile, elements, cycles - begun, streams[first_row:r])
                elements, begun, first_row = np.int64(0), cycles, r
                tile += 1
        if clusters:
            took = alone + delay_of[filled] + step * vectors
            if clusters > 1:
                took, waited = _shared_wave(
                    ends, clusters, vectors, levels, ports, step, lead, parts
                )
                at_ports += waited
            waves += 1
            rows += clusters
            in_waves += took
            longest = max(longest, took)
            in_round += 1
            if in_round == units:
                in_round, longest, slowest, cycles = _round(
                    in_round, units, longest, slowest, cycles, took
                )
        # Rows longer than the array.
        while r < count:
            size, stream = sizes[np.uint64(r)], streams[np.uint64(r)]
            if size <= multipliers or not stream:
                break
            if size != known:
                known = size
                whole, rest = _folds(known, multipliers, per_fold)
                narrow = min(step, rest + 1) if rest else np.int64(0)
                final = np.int64(0)
                if rest:
                    final = lead - 2 * (step - narrow) + 1 + delay_of[rest + 1] - narrow
            took = full + step * stream
            last = final + narrow * stream
            folded += 1
            rows += 1
            folds += whole + (rest > 0)
            waves += 1 + whole + (rest > 0)
            in_waves += (1 + whole) * took + last
            elements += known
            in_round += 1 + whole + (rest > 0)
            if in_round < units:
                longest = max(longest, took, last)
            else:
                in_round -= rest > 0
                longest = max(longest, took)
                if in_round >= units:
                    in_round, longest, slowest, cycles = _round(
                        in_round, units, longest, slowest, cycles, took
                    )
                if rest:
                    longest = max(longest, last)
                    in_round += 1
                    if in_round == units:
                        in_round, longest, slowest, cycles = _round(
                            in_round, units, longest, slowest, cycles, last
                        )
            r += 1
            if elements >= target and r < count:
                _close(tiles, tile, elements, cycles - begun, streams[first_row:r])
                elements, begun, first_row = np.int64(0), cycles, r
                tile += 1
    _close(tiles, tile, elements, cycles + longest - begun, streams[first_row:])
    facts[WAVES], facts[FOLDED], facts[LONGEST] = waves, folded, max(slowest, longest)
    facts[CLUSTERS], facts[PORT_CYCLES], facts[WAVE_CYCLES] = rows + folds, at_ports, in_waves
    return tile + 1
