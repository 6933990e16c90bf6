"""The wafer's placements, zero activations, its waves in the pipeline, and its loss beyond 99 %."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, Op, Workload, gemm, load_device
from hwsim.accelerators.placement import balanced_columns, neighbours
from hwsim.answers.explain import explain
from hwsim.answers.timeline import layer_timeline, step_timeline
from hwsim.pipeline.reference import simulate

QUICK = settings(deadline=None, max_examples=30)
PHASES = ("forward", "grad_input", "grad_weight")
PLACEMENTS = ("contiguous", "interleaved", "balanced")
COLUMNS_ONLY = {"stream_bandwidth": 1e30, "port_bytes": 1e20, "broadcast_bytes": 1e20}


def skewed(rows: int, columns: int, seed: int = 0) -> Mask:
    """Few inputs hold most of the weights, and neighbours are alike."""
    share = np.linspace(0.01, 0.5, columns) ** 2
    return Mask(np.random.default_rng(seed).random((rows, columns)) < share)


def sparse(device, op):
    return next(e for e in device.kernels(op) if e.kernel == "sparse")


def test_features_are_dealt_in_rounds_the_largest_first_to_the_least_loaded():
    counts = np.array([[5, 9, 1, 7, 3, 2]], np.uint8)
    # 9 → column 0, 7 → 1; 5 → 1, 3 → 0; both have 12: 2 → 0, 1 → 1.
    assert balanced_columns(counts, 2).tolist() == [1, 0, 1, 1, 0, 0]


def test_features_of_different_waves_share_a_column_when_balanced():
    counts = np.array([[8, 8, 0, 0], [0, 0, 8, 8]], np.uint8)
    column_of = balanced_columns(counts, 2)
    assert sorted(column_of[:2]) == sorted(column_of[2:]) == [0, 1]


@QUICK
@given(st.integers(1, 4), st.integers(1, 90), st.integers(1, 40), st.integers(0, 99))
def test_every_placement_gives_every_column_as_many_features(waves, features, columns, seed):
    columns = min(columns, features)
    counts = np.random.default_rng(seed).integers(0, 128, (waves, features)).astype(np.uint8)
    for column_of in (balanced_columns(counts, columns), neighbours(features, columns)):
        held = np.bincount(column_of, minlength=columns)
        assert (len(held), held.sum()) == (columns, features)
        assert held.max() - held.min() <= 1


@QUICK
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.integers(0, 99))
def test_every_placement_counts_each_nonzero_once(rows, columns, pes, seed):
    mask = skewed(rows, columns, seed)
    for placement in PLACEMENTS:
        device = load_device("wafer", pe_columns=pes, placement=placement)
        for phase in PHASES:
            table = device._table(gemm(16, rows, columns, mask, phase))
            assert table[:, 1].sum() == mask.nnz
            assert (table[:, 0] * min(pes, device.pe_columns) >= table[:, 1]).all()


@pytest.mark.parametrize("phase", PHASES)
def test_balanced_beats_interleaved_beats_contiguous_on_skewed_inputs(phase):
    mask = skewed(1024, 1024)
    if phase == "grad_input":
        mask = Mask(mask.array.T)
    op = gemm(1024, 1024, 1024, mask, phase)
    seconds = [
        sparse(load_device("wafer", placement=p, **COLUMNS_ONLY), op).seconds for p in PLACEMENTS
    ]
    assert seconds[0] > 1.5 * seconds[1] > 1.5 * 1.1 * seconds[2]


def test_balance_pays_on_a_random_mask_too():
    mask = Mask(np.random.default_rng(0).random((768, 768)) < 0.1)
    op = gemm(1024, 768, 768, mask)
    apart, dealt = (
        sparse(load_device("wafer", placement=p, **COLUMNS_ONLY), op)
        for p in ("interleaved", "balanced")
    )
    assert apart.seconds > 1.1 * dealt.seconds
    found = explain(load_device("wafer", **COLUMNS_ONLY), op)
    assert {c.what for c in found.settings} == {"placement balanced", "placement contiguous"}


def test_grouped_weights_are_placed_as_their_block_diagonal_matrix():
    groups, high, wide = 4, 40, 24
    mask = skewed(groups * high, wide)
    blocks = mask.array.reshape(groups, high, wide)
    whole = np.zeros((groups * high, groups * wide), bool)
    for g in range(groups):
        whole[g * high : (g + 1) * high, g * wide : (g + 1) * wide] = blocks[g]
    for placement in PLACEMENTS:
        device = load_device("wafer", placement=placement, pe_columns=16)
        for phase in PHASES:
            split = Op(
                "conv", phase, m=64, n=high, k=wide, count=groups, dense_flops=2 * 64 * mask.size,
                weight_bytes=4 * mask.size, weight_shape=mask.shape, mask=mask,
            )  # fmt: skip
            joined = gemm(64, *whole.shape, Mask(whole), phase)
            assert device._table(split).tolist() == device._table(joined).tolist()


def test_zero_activations_save_time_only_where_they_are_multiplied():
    mask = skewed(512, 512)
    full = load_device("wafer", nonzero_overhead=0, **COLUMNS_ONLY)
    half = load_device("wafer", nonzero_overhead=0, activation_density=0.5, **COLUMNS_ONLY)
    for phase, gain in (("forward", 2.0), ("grad_input", 1.0), ("grad_weight", 2.0)):
        for op in (gemm(8192, 512, 512, mask, phase), gemm(8192, 512, 512, phase=phase)):
            assert full.estimate(op).seconds / half.estimate(op).seconds == pytest.approx(gain)
            assert half.estimate(op).seconds >= half.roofline(op)
            assert half.estimate(op).flops == pytest.approx(full.estimate(op).flops / gain)


@QUICK
@given(
    st.sampled_from(PHASES), st.integers(1, 200), st.integers(1, 200), st.integers(1, 999),
    st.floats(0, 1), st.floats(0.01, 1), st.just(0.0) | st.floats(1e-9, 500),
)  # fmt: skip
def test_denser_activations_and_dearer_waves_are_never_faster(phase, n, k, m, density, a, wave):
    mask = Mask(np.random.default_rng(1).random((n, k)) < density)
    op = gemm(m, n, k, mask, phase)
    low = load_device("wafer", activation_density=a).estimate(op)
    high = load_device("wafer", wave_overhead=wave).estimate(op)
    plain = load_device("wafer").estimate(op)
    assert low.seconds <= plain.seconds * (1 + 1e-12) <= high.seconds * (1 + 2e-12)
    assert load_device("wafer", activation_density=a).roofline(op) <= low.seconds * (1 + 1e-12)


def test_a_change_of_waves_is_paid_by_waves_with_a_nonzero_alone():
    array = np.zeros((3 * 128, 64), bool)
    array[0, 0] = array[300, 5] = True
    op = gemm(16, *array.shape, Mask(array))
    free, dear = (load_device("wafer", wave_overhead=w).estimate(op) for w in (0.0, 1000.0))
    assert dear.cycles - free.cycles == pytest.approx(2 * 1000.0)
    assert dear.bound == "launch"


@pytest.mark.parametrize("wave_overhead", [0.0, 256.0])
def test_the_gain_falls_behind_the_density_beyond_99_percent(wave_overhead):
    device = load_device("wafer", wave_overhead=wave_overhead)
    rng = np.random.default_rng(0)
    dense = device.estimate(gemm(1024, 2048, 2048)).seconds
    kept = []
    for density in (0.1, 0.01, 0.001):
        mask = Mask(rng.random((2048, 2048)) < density)
        kept.append(dense / device.estimate(gemm(1024, 2048, 2048, mask)).seconds * density)
    assert kept[0] > 2 * kept[1] > 4 * kept[2]


@QUICK
@given(
    st.integers(1, 400), st.integers(1, 400), st.integers(1, 600), st.sampled_from(PHASES),
    st.sampled_from([1e8, 1e10, 1e12]), st.booleans(),
)  # fmt: skip
def test_the_pipelines_run_is_bounded_by_its_busiest_part_and_by_the_sum(n, k, m, phase, s, masked):
    device = load_device("wafer", stream_bandwidth=s)
    op = gemm(m, n, k, skewed(n, k) if masked else None, phase)
    tiles, run = device.tiles(op), device.run(op)
    per_cycle = s / device.clock_hz
    stream = [math.ceil(b / per_cycle) for b in (*tiles.weight_bytes, *tiles.output_bytes)]
    parts = [stream, tiles.fill_cycles, tiles.compute_cycles, tiles.drain_cycles]
    assert max(sum(part) for part in parts) <= run.cycles <= sum(sum(part) for part in parts)
    assert run.cycles == simulate(device.machine(), tiles).cycles
    assert run.bytes_moved == sum(tiles.weight_bytes) + sum(tiles.output_bytes)
    assert all(0 <= share <= 1 for share in run.occupancy(device.machine()).values())


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("stream", [1e10, 1.5e11, 1e13])
def test_the_pipelines_run_is_near_the_price_of_a_large_product(phase, stream):
    device = load_device("wafer", stream_bandwidth=stream)
    mask = Mask(np.random.default_rng(0).random((1024, 1024)) < 0.1)
    for op in (gemm(512, 1024, 1024, mask, phase), gemm(512, 1024, 1024, phase=phase)):
        cycles = device.estimate(op).cycles
        assert 0.95 * cycles <= device.run(op).cycles <= 1.05 * cycles


def test_a_timeline_shows_the_stream_the_columns_and_what_they_wait_for():
    device = load_device("wafer", stream_bandwidth=1e10)
    op = gemm(256, 1024, 512, skewed(1024, 512), name="up")
    line = layer_timeline(device, op)
    assert line.resources == ("channel 0", "array 0", "output port")
    assert line.waiting()["weights"] > 0.5 * line.seconds
    step = step_timeline(device, Workload((op, gemm(64, 512, 512, name="next"))))
    assert step.seconds > line.seconds
    assert {s.label for s in step.segments} == {"up", "next"}


def test_products_of_activations_run_as_one_tile_and_others_are_refused():
    device = load_device("wafer")
    scores = Op("attention", "forward", m=32, n=32, k=16, count=4, dense_flops=2**17)
    assert device.run(scores).cycles == math.ceil(device.estimate(scores).cycles)
    with pytest.raises(InputError, match="gemm, conv, attention"):
        device.run(Op("norm", "forward", activation_bytes=8))
