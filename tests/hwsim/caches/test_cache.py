import hashlib
import json
from pathlib import Path

import cache_reference_traces as definitions
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwsim import InputError
from hwsim.caches.cache import CacheHierarchy, simulate, simulate_trace

REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "cache.json").read_text())


def made(expression):
    """The trace that an expression such as "seq(100,8)" names."""
    name, _, rest = expression.partition("(")
    return getattr(definitions, name)(*json.loads(f"[{rest[:-1]}]"))


def as_pycachesim(level):
    """Its counters: the fetch of a store that misses is one more load; store hits are no hits."""
    return [
        level.loads + level.store_misses, level.stores, level.load_hits, level.misses,
        level.write_backs,
    ]  # fmt: skip


@pytest.mark.parametrize("row", REFERENCE["traces"], ids=lambda row: row["trace"])
def test_counts_equal_the_reference(row):
    addresses, is_store = made(row["trace"])
    digest = hashlib.sha256(addresses.tobytes() + is_store.tobytes()).hexdigest()
    assert digest == row["sha256"], "the trace itself is not the reference's"
    for geometry, policy, expected in row["cases"]:
        counts = simulate(addresses, is_store, REFERENCE["geometries"][geometry], policy=policy)
        assert [as_pycachesim(level) for level in counts.levels] == expected, (geometry, policy)


@pytest.mark.parametrize(
    ("kernel", "block"),
    sorted({(r["kernel"], r.get("block", 0)) for r in REFERENCE["matmul"]}),
)
def test_matmul_misses_equal_the_closed_forms(kernel, block):
    trace = made(f"{kernel}(64,{block})" if block else f"{kernel}(64)")
    for row in REFERENCE["matmul"]:
        if (row["kernel"], row.get("block", 0)) == (kernel, block):
            counts = simulate(*trace, [("L1", 1, row["lines"])])
            assert counts["L1"].misses == row["misses"]


def plain(addresses, is_store, levels, policy, stores_refresh):
    """Word for word: each set is a list, the newest first. (load misses, store misses, dirty)"""
    caches = [([[] for _ in range(sets)], ways, [0, 0, 0]) for _, sets, ways in levels]

    def access(depth, line, store):
        if depth == len(caches):
            return
        sets, ways, misses = caches[depth]
        held = sets[line % len(sets)]
        found = next((entry for entry in held if entry[0] == line), None)
        if found is None:
            misses[store] += 1
            access(depth + 1, line, False)
            held.insert(0, [line, store])
            if len(held) > ways:
                old, dirty = held.pop()
                misses[2] += dirty
                if dirty:
                    access(depth + 1, old, True)
            return
        found[1] |= store
        if policy == "lru" and (stores_refresh or not store):
            held.remove(found)
            held.insert(0, found)

    for address, store in zip(addresses.tolist(), is_store.tolist(), strict=True):
        access(0, address // 64, bool(store))
    return [misses for _, _, misses in caches]


@st.composite
def hierarchies(draw):
    depth = draw(st.integers(1, 3))
    return [
        (f"L{n}", 1 << draw(st.integers(0, 3)), draw(st.sampled_from([1, 2, 3, 4, 6, 8, 11, 40])))
        for n in range(depth)
    ]


@settings(deadline=None, max_examples=60)
@given(
    levels=hierarchies(),
    policy=st.sampled_from(["lru", "fifo"]),
    stores_refresh=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    span=st.sampled_from([512, 4096, 1 << 15]),
    percent=st.sampled_from([0, 20, 100]),
    cut=st.integers(0, 400),
)
def test_counts_equal_a_plain_simulation(levels, policy, stores_refresh, seed, span, percent, cut):
    rng = np.random.default_rng(seed)
    # Runs in one line, so that folding them is tested too.
    addresses = np.repeat(rng.integers(0, span, 200), 2) + rng.integers(0, 16, 400)
    is_store = rng.random(400) * 100 < percent
    caches = CacheHierarchy(levels, policy=policy, stores_refresh=stores_refresh)
    # Loads first without a store in sight, then all: the way without dirty lines must hand over.
    caches.access(addresses[:cut])
    caches.access(addresses[cut:], is_store[cut:])
    is_store[:cut] = False
    expected = plain(addresses, is_store, levels, policy, stores_refresh)
    found = [[c.load_misses, c.store_misses, c.write_backs] for c in caches.counts().levels]
    assert found == expected


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.int64, st.integers(1, 300), elements=st.integers(0, 1 << 14)))
def test_more_ways_never_miss_more_under_lru(addresses):
    misses = [simulate(addresses, levels=[("L1", 4, w)])["L1"].misses for w in (1, 2, 4, 8, 16)]
    assert misses == sorted(misses, reverse=True)
    assert misses[-1] >= len(np.unique(addresses // 64))


def test_what_a_level_misses_the_next_one_loads():
    rng = np.random.default_rng(0)
    addresses, is_store = rng.integers(0, 1 << 18, 200_000), rng.random(200_000) < 0.3
    counts = simulate(addresses, is_store)
    for above, below in zip(counts.levels[:-1], counts.levels[1:], strict=True):
        assert below.loads == above.misses
        assert below.stores == above.write_backs
    assert counts["L1"].hits + counts["L1"].misses == 200_000
    assert counts["L1"].evictions >= counts["L1"].write_backs
    last = counts["L3"]
    assert counts.memory_bytes == counts.bytes_below("L3") == 64 * (last.misses + last.write_backs)


def test_a_literal_trace():
    counts = simulate(np.array([0, 8, 64, 0, 128]), np.array([1, 0, 0, 0, 0]), [("L1", 1, 2)])
    level = counts["L1"]
    # Line 0 is written, hit twice, and is the newer of two when line 2 comes: line 1 falls out.
    assert (level.store_misses, level.load_misses, level.load_hits) == (1, 2, 2)
    assert (level.evictions, level.write_backs) == (1, 0)


def test_a_trace_in_pieces_counts_as_one():
    addresses = np.random.default_rng(1).integers(0, 1 << 20, 100_000)
    is_store = addresses % 3 == 0
    pieces = [(addresses[i : i + 777], is_store[i : i + 777]) for i in range(0, 100_000, 777)]
    assert simulate_trace(pieces) == simulate(addresses, is_store)


def test_an_empty_trace_counts_nothing():
    assert simulate(np.zeros(0, np.int64))["L1"].hits == 0


ADDRESSES = np.arange(4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"addresses": np.array([0.5])}, "addresses: float64"),
        ({"addresses": np.zeros((2, 2), int)}, r"shape \(2, 2\)"),
        ({"addresses": np.array([3, -1])}, "addresses: value is -1"),
        ({"addresses": np.array([1 << 62])}, "addresses: value is 4611686018427387904"),
        ({"addresses": np.array([1 << 37]), "levels": [("L1", 1, 4)]}, "addresses: value"),
        ({"is_store": np.zeros(3, bool)}, "is_store"),
        ({"is_store": np.zeros(4)}, "is_store: float64"),
        ({"levels": []}, "levels: none given"),
        ({"levels": [("L1", 64)]}, "allowed is .name, sets, ways"),
        ({"levels": [("L1", 63, 8)]}, "sets of L1: value is 63"),
        ({"levels": [("L1", 64, 0)]}, "ways of L1: value is 0"),
        ({"levels": [("L1", 64, 8), ("L1", 64, 8)]}, "names are L1, L1"),
        ({"line_bytes": 48}, "line_bytes: value is 48"),
        ({"policy": "random"}, "unknown policy 'random'"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(InputError, match=words):
        simulate(**{"addresses": ADDRESSES, **arguments})


def test_an_unknown_level_lists_the_valid_ones():
    with pytest.raises(InputError, match="valid: L1, L2, L3"):
        simulate(ADDRESSES)["L4"]
