"""The reference machine: small runs written out, conservation, and how it says that it is stuck."""

import itertools
import math

import numpy as np
import pytest

from hwsim import InputError
from hwsim.pipeline.reference import Machine, Tiles, deal, simulate


def test_one_tile_takes_load_fill_compute_drain_and_store():
    machine = Machine(channel_bytes_per_cycle=2.0, latency_cycles=3)
    run = simulate(machine, Tiles.of([(8, 6, 4, 5, 10, 1)]))
    # weights there at 4 + 3, filled at 12; inputs at 4 + 3 + 3; 10 cycles; 1; then 2 + 3
    assert run.finish[0] == 22
    assert run.cycles == 22 + 1 + 2 + 3


def test_double_buffering_hides_loads_behind_work():
    machine = Machine(channel_bytes_per_cycle=1.0, weight_buffer_bytes=20)
    tiles = Tiles.of([(10, 0, 0, 0, 10, 0)] * 4)
    assert simulate(machine, tiles).cycles == 10 + 4 * 10


def test_a_single_buffer_makes_the_array_wait_for_each_load():
    machine = Machine(channel_bytes_per_cycle=1.0, weight_buffer_bytes=10)
    tiles = Tiles.of([(10, 0, 0, 0, 10, 0)] * 4)
    assert simulate(machine, tiles).cycles == 4 * (10 + 10)


def test_without_lookahead_a_tile_is_loaded_when_the_one_before_is_done():
    machine = Machine(channel_bytes_per_cycle=1.0, lookahead=0)
    assert simulate(machine, Tiles.of([(5, 5, 0, 0, 10, 0)] * 3)).cycles == 3 * (5 + 5 + 10)


def test_loads_are_served_by_tile_so_that_the_first_one_starts_early():
    machine = Machine(channel_bytes_per_cycle=1.0, lookahead=5)
    run = simulate(machine, Tiles.of([(10, 10, 0, 0, 1, 0)] * 5))
    assert run.first_start == 20


def test_shadow_registers_hide_the_fill():
    tiles = Tiles.of([(0, 0, 0, 4, 10, 0)] * 3)
    assert simulate(Machine(shadow=True), tiles).cycles == 4 + 3 * 10
    assert simulate(Machine(shadow=False), tiles).cycles == 3 * (4 + 10)


def test_two_arrays_share_the_tiles():
    tiles = Tiles.of([(0, 0, 0, 0, 10, 0)] * 4)
    assert simulate(Machine(arrays=2), tiles).cycles == 20


def test_the_output_buffer_holds_back_the_next_tile():
    machine = Machine(channel_bytes_per_cycle=1.0, output_buffer_bytes=30)
    run = simulate(machine, Tiles.of([(0, 0, 30, 0, 5, 0)] * 2))
    assert list(run.finish) == [5, 5 + 30 + 5]


def test_inputs_wait_for_the_result_they_read_and_weights_do_not():
    machine = Machine(channel_bytes_per_cycle=1.0)
    first = Tiles.of([(0, 0, 10, 0, 50, 0)])
    second = Tiles.of([(40, 10, 0, 0, 5, 0)])
    # 40 bytes of weights pass while the first op works; its inputs follow its store
    assert simulate(machine, Tiles.joined([first, second])).cycles == 50 + 10 + 10 + 5
    alone = simulate(machine, second).cycles
    assert simulate(machine, Tiles.joined([first, second])).cycles < 50 + 10 + alone


def test_chunks_are_dealt_to_the_channels_in_turn():
    assert deal(700, 1, 2, 256) == ([256, 444], 0)
    assert deal(0, 1, 3, 256) == ([0, 0, 0], 1)
    run = simulate(
        Machine(channels=4, channel_bytes_per_cycle=1.0, interleave_bytes=10),
        Tiles.of([(40, 0, 0, 0, 1, 0)]),
    )
    assert run.cycles == 11


@pytest.mark.parametrize("buffer", ["weight", "input", "output"])
def test_a_buffer_smaller_than_a_tile_is_named(buffer):
    sizes = {"weight": (9, 0, 0), "input": (0, 9, 0), "output": (0, 0, 9)}[buffer]
    machine = Machine(**{f"{buffer}_buffer_bytes": 8})
    tiles = Tiles.of([(0, 0, 0, 0, 1, 0), (*sizes, 0, 1, 0), (1, 1, 1, 0, 1, 0)])
    with pytest.raises(InputError, match=rf"tile 1 needs 9 bytes; {buffer}_buffer_bytes is 8"):
        simulate(machine, tiles)


def test_the_trace_accounts_for_every_busy_cycle_and_never_overlaps():
    rng = np.random.default_rng(3)
    tiles = Tiles.of(rng.integers(1, 60, (20, 6)).tolist())
    machine = Machine(2, 1.5, 7, 16, 120, 120, 120, 3, 2, False)
    run = simulate(machine, tiles, trace=True)
    for name in {e.resource for e in run.events}:
        spans = sorted((e.start, e.end) for e in run.events if e.resource == name)
        if name.startswith("array"):
            gaps = [e for e in run.events if e.resource == name and "waits" in e.kind]
            spans = [s for s in spans if s not in [(g.start, g.end) for g in gaps]]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    work = sum(e.end - e.start for e in run.events if e.kind == "compute")
    assert work == run.busy["array"] == tiles.compute_cycles.sum()
    causes = {e.kind for e in run.events if e.kind.startswith("waits")}
    assert causes <= {f"waits for {c}" for c in ("weights", "fill", "inputs", "output space")}
    assert causes


def test_a_tile_that_waits_for_a_later_one_is_refused():
    with pytest.raises(InputError, match="tile 0 waits for tile 1"):
        Tiles.of([(0, 0, 0, 0, 1, 0, 1), (0, 0, 0, 0, 1, 0, -1)])


@pytest.mark.parametrize(
    ("field", "value"),
    [("channels", 0), ("arrays", 0), ("interleave_bytes", 0), ("latency_cycles", -1),
     ("lookahead", -1),     ("channel_bytes_per_cycle", 0.0), ("channel_bytes_per_cycle", math.nan),
     ("weight_buffer_bytes", -1.0)],
)  # fmt: skip
def test_impossible_machines_are_refused_by_name(field, value):
    with pytest.raises(InputError, match=f"{field}: value is"):
        Machine(**{field: value})


def test_tiles_without_content_or_with_negative_sizes_are_refused():
    with pytest.raises(InputError, match="there are none"):
        Tiles.of([])
    with pytest.raises(InputError, match="weight_bytes: smallest value is -1"):
        Tiles.of([(-1, 0, 0, 0, 1, 0)])
