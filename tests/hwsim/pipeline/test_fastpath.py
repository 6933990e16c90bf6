"""The recurrence against the event-driven reference, and the laws of the machine."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError
from hwsim.pipeline import fast
from hwsim.pipeline.reference import Machine, Tiles, simulate


def random_case(rng: np.random.Generator) -> tuple[Machine, Tiles]:
    count = int(rng.integers(1, 13))
    largest = int(rng.choice([3, 40, 3000]))

    def sizes() -> np.ndarray:
        return np.where(rng.random(count) < 0.3, 0, rng.integers(0, largest, count))

    def cycles() -> np.ndarray:
        return rng.integers(0, int(rng.choice([2, 20, 400])), count)

    def room(content: np.ndarray) -> float:
        return math.inf if rng.random() < 0.2 else float(content.max() * rng.choice([1, 1.5, 2, 4]))

    weights, inputs, outputs = sizes(), sizes(), sizes()
    after = [int(rng.integers(-1, i)) if i and rng.random() < 0.3 else -1 for i in range(count)]
    tiles = Tiles(weights, inputs, outputs, cycles(), cycles(), cycles(), np.array(after))
    machine = Machine(
        int(rng.integers(1, 5)), float(rng.choice([0.3, 1, 7.5, 64, math.inf])),
        int(rng.integers(0, 50)), int(rng.choice([1, 16, 256])),
        room(weights), room(inputs), room(outputs),
        int(rng.integers(0, 5)), int(rng.integers(1, 4)), bool(rng.integers(0, 2)),
    )  # fmt: skip
    return machine, tiles


def same(a, b) -> bool:
    return (
        a.cycles == b.cycles
        and a.busy == b.busy
        and a.bytes_moved == b.bytes_moved
        and a.first_start == b.first_start
        and np.array_equal(a.finish, b.finish)
        and np.array_equal(a.stored, b.stored)
    )


@pytest.mark.parametrize("block", range(8))
def test_recurrence_equals_events_to_the_cycle_on_250_random_cases(block):
    rng = np.random.default_rng([2026, block])
    for _ in range(250):
        machine, tiles = random_case(rng)
        assert same(simulate(machine, tiles), fast.simulate(machine, tiles)), (machine, tiles)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(*[st.integers(0, 90)] * 6), min_size=1, max_size=9),
    st.integers(1, 4), st.sampled_from([0.25, 1.0, 3.0, math.inf]), st.integers(0, 9),
    st.sampled_from([1, 8, 64]), st.tuples(*[st.integers(0, 100)] * 3), st.integers(0, 3),
    st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_both_engines_agree_also_on_what_is_stuck(
    rows, channels, bandwidth, latency, interleave, spare, lookahead, arrays, shadow
):
    tiles = Tiles.of(rows)
    largest = [max(row[i] for row in rows) for i in range(3)]
    caps = [float(max(0, a - 5 + s)) for a, s in zip(largest, spare, strict=True)]
    machine = Machine(
        channels, bandwidth, latency, interleave, *caps, lookahead, arrays, shadow
    )  # fmt: skip
    if all(c >= a for a, c in zip(largest, caps, strict=True)):
        assert same(simulate(machine, tiles), fast.simulate(machine, tiles))
    else:
        with pytest.raises(InputError, match="_buffer_bytes is"):
            simulate(machine, tiles)
        with pytest.raises(InputError, match="_buffer_bytes is"):
            fast.simulate(machine, tiles)


@pytest.mark.parametrize("seed", range(200))
def test_more_bandwidth_and_less_latency_are_never_slower(seed):
    machine, tiles = random_case(np.random.default_rng([7, seed]))
    from dataclasses import replace

    before = None
    for factor in (1, 1.1, 2, 3.7, 100, math.inf):
        faster = replace(machine, channel_bytes_per_cycle=machine.channel_bytes_per_cycle * factor)
        cycles = fast.simulate(faster, tiles).cycles
        assert before is None or cycles <= before
        before = cycles
    at_once = fast.simulate(replace(machine, latency_cycles=0), tiles).cycles
    assert at_once <= fast.simulate(machine, tiles).cycles


@pytest.mark.parametrize("seed", range(200))
def test_bytes_are_conserved_and_no_resource_is_busier_than_always(seed):
    machine, tiles = random_case(np.random.default_rng([8, seed]))
    run = fast.simulate(machine, tiles)
    moved = tiles.weight_bytes.sum() + tiles.input_bytes.sum() + tiles.output_bytes.sum()
    assert run.bytes_moved == moved
    assert run.busy["array"] == tiles.compute_cycles.sum()
    assert all(0 <= share <= 1 for share in run.occupancy(machine).values())
    assert run.cycles >= moved / (machine.channels * machine.channel_bytes_per_cycle)
    assert run.cycles >= tiles.compute_cycles.sum() / machine.arrays


def test_a_trace_and_times_past_exact_integers_are_left_to_the_reference():
    machine = Machine(channel_bytes_per_cycle=1.0)
    assert fast.simulate(machine, Tiles.of([(8, 8, 8, 1, 1, 1)]), trace=True).events
    huge = Tiles.of([(2**51, 2**51, 0, 0, 1, 0)])
    assert not fast.accepts(machine, huge)
    assert fast.simulate(machine, huge).cycles == 2**52 + 1
