"""A mask known by its statistics: what devices are told equals the mean over random masks."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask, gemm, load_device
from hwsim.cpu.costs import lookup_steps
from hwsim.gpu.rules import Facts
from hwsim.masks.statistical import StatisticalMask, spread
from hwsim.masks.statistics import (
    add_up,
    always,
    largest,
    line_counts,
    of_each,
    shared_out,
    strata,
    sum_of,
    sums_kept,
    within_n_m,
)
from hwsim.masks.wave_law import LineLaw, WaveLaw
from hwsim.patterns import pattern
from hwsim.patterns.n_m import NM
from sparse_train.patterns import projection

SHAPE = (256, 512)
KINDS = (("unstructured", 0.1), ("fan_in", 0.1), ("2:4", 0.5), ("transposable 2:4", 0.5),
         ("block:32,32", 0.25), ("group:32", 0.1), ("neuron", 0.5), ("neuron:1", 0.5),
         ("balanced:64", 0.125), ("balanced:8,8", 0.25), ("balanced:32,8", 0.1),
         ("v_n_m:64,2,8", 0.25))  # fmt: skip


def drawn(kind, nnz, many=12, shape=SHAPE):
    for seed in range(many):
        scores = np.random.default_rng(seed).random(shape, dtype=np.float32)
        yield Mask(projection(kind).project(scores, nnz), copy=False)


def test_two_coins_show_a_head_three_times_in_four():
    coin = np.array([0.5, 0.5])
    assert largest(coin, 2) == (pytest.approx(0.75), pytest.approx(np.sqrt(3) / 4))
    assert sum_of(coin, 2) == pytest.approx([0.25, 0.5, 0.25])


@given(st.integers(1, 8), st.integers(1, 64), st.floats(0.0, 1.0))
@settings(max_examples=50)
def test_distributions_add_up_to_one_and_have_the_mean_that_they_should(size, many, share):
    cells = of_each(size, 1, size, share)
    counts = line_counts(cells, size * many, size * many)
    assert counts.sum() == pytest.approx(1.0)
    assert np.arange(len(counts)) @ counts == pytest.approx(share * size * many, abs=1e-6)
    assert line_counts(always(size, 1, 1), size * many, size * many)[many] == 1.0


@pytest.mark.parametrize(("kind", "density"), KINDS)
def test_gpus_are_told_what_random_masks_have_in_common(kind, density):
    known = StatisticalMask(SHAPE, density, kind)
    facts = Facts(known, {})
    masks = [Facts(m, {}) for m in drawn(kind, known.nnz)]
    for phase in ("forward", "grad_input"):
        counts = [m.counts(phase) for m in masks]
        assert facts.counts(phase).uneven == pytest.approx(
            np.mean([c.uneven for c in counts]), rel=0.03
        )
        assert facts.counts(phase).longest == pytest.approx(
            np.mean([c.longest for c in counts]), rel=0.05
        )
    for one in masks:
        assert one.mask.nnz == known.nnz
        assert facts.along("bfloat16") == one.along("bfloat16")
        assert facts.along("tfloat32") == one.along("tfloat32")
        assert facts.block_side == one.block_side and facts.v_n_m == one.v_n_m
        assert facts.counts("forward").equal == one.counts("forward").equal


@pytest.mark.parametrize(("kind", "density"), [k for k in KINDS if k[0][:5] not in ("group",)])
@pytest.mark.parametrize("device", ["a100", "wafer", "zen3", "sigma-like", "ideal"])
def test_prices_are_those_of_random_masks_on_average(device, kind, density):
    device = load_device(device)
    known = StatisticalMask(SHAPE, density, kind)
    dtype = "float32" if device.name == "zen3" else "bfloat16"
    for phase in ("forward", "grad_input"):
        op = gemm(256, *SHAPE, None, phase, dtype)
        seconds = [device.estimate(op.with_mask(m)).seconds for m in drawn(kind, known.nnz)]
        ours, said = (
            device.estimate(op.with_mask(known)).seconds,
            spread(device, op.with_mask(known)),
        )
        noise = 3.0 * max(np.std(seconds), said) / len(seconds) ** 0.5
        assert abs(ours - np.mean(seconds)) <= 0.01 * np.mean(seconds) + noise


def test_a_csr_product_waits_for_the_fullest_of_32_rows_of_random_masks():
    a100, shape = load_device("a100"), (1024, 4096)

    def seconds(mask):
        op = gemm(4096, *shape, mask, "forward", "float16")
        return next(e.seconds for e in a100.kernels(op) if e.kernel == "csr")

    known = StatisticalMask(shape, 0.02)
    found = [seconds(m) for m in drawn("unstructured", known.nnz, 8, shape)]
    assert seconds(known) == pytest.approx(np.mean(found), rel=0.01)
    ways = [seconds(way) for way in known.variants]
    assert np.std(ways) == pytest.approx(np.std(found), rel=0.8)


def test_a_mask_without_positions_says_so_and_one_that_is_known_has_no_spread():
    known = StatisticalMask((64, 64), 0.5)
    for ask in (lambda: known.array, lambda: known.blocks, lambda: known.bits):
        with pytest.raises(InputError, match="known by its statistics"):
            ask()
    with pytest.raises(InputError, match=r"density: value is 1\.5; allowed is 0 to 1"):
        StatisticalMask((64, 64), 1.5)
    op = gemm(64, 64, 64, Mask(np.eye(64, dtype=bool)), "forward", "bfloat16")
    assert spread(load_device("a100"), op) == 0.0


def test_equal_statistics_are_equal_masks():
    one, other = StatisticalMask((64, 64), 0.5, "2:4"), StatisticalMask((64, 64), 0.5, "2:4")
    assert one == other and hash(one) == hash(other) and one.digest == other.digest
    assert one != StatisticalMask((64, 64), 0.5) and one != Mask(np.eye(64, dtype=bool))
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.satisfies(pattern("n_m:2,4")) and not one.satisfies(pattern("n_m:1,4"))
    assert one.satisfies(pattern("n_m:4,8")) and one.satisfies(pattern("fan_in"))


@pytest.mark.parametrize(("kind", "density"), [k for k in KINDS if k[0] != "neuron:1"])
def test_a_grid_that_deals_features_by_their_counts(kind, density):
    wafer = load_device("wafer", placement="balanced")
    known = StatisticalMask(SHAPE, density, kind)
    for phase in ("forward", "grad_input"):
        op = gemm(256, *SHAPE, None, phase, "bfloat16")
        seconds = [wafer.estimate(op.with_mask(m)).seconds for m in drawn(kind, known.nnz)]
        ours, said = wafer.estimate(op.with_mask(known)).seconds, spread(wafer, op.with_mask(known))
        noise = 3.0 * max(np.std(seconds), said) / len(seconds) ** 0.5
        assert abs(ours - np.mean(seconds)) <= 0.01 * np.mean(seconds) + noise


@pytest.mark.parametrize(
    ("kind", "density"), [k for k in KINDS if k[0] not in ("transposable 2:4", "v_n_m:64,2,8")]
)
def test_look_ups_take_as_many_steps_as_under_random_masks(kind, density):
    known = StatisticalMask(SHAPE, density, kind)
    for phase in ("forward", "grad_input"):
        steps = [lookup_steps(mask, phase) for mask in drawn(kind, known.nnz)]
        ours = np.mean([lookup_steps(way, phase) for way in known.variants])
        assert ours == pytest.approx(np.mean(steps), rel=0.02), phase


@given(
    st.integers(1, 40), st.integers(1, 6), st.integers(2, 8), st.floats(0.02, 0.9), st.integers(0)
)
@settings(max_examples=40)
def test_the_fullest_column_has_between_its_share_and_all(size, held, groups, share, seed):
    load = sum_of(np.array([1.0 - share, share]), size * held)
    mean = groups * size * held * share
    law = WaveLaw(load, groups, 1, groups, size, mean, fixed=False)
    places = np.random.default_rng(seed).random((2, 8))
    totals = law.totals(places[0], 8)
    slowest = law.slowest(totals, places[1])
    assert (slowest >= totals / groups - 1e-9).all() and (slowest <= totals + 1e-9).all()
    assert totals.sum() == pytest.approx(8 * mean, abs=0.5 + 1e-6)


def test_two_weights_on_two_columns_meet_in_one_of_three_cases():
    # Of four places, two a column, two are active: six ways, in two of which one column has both.
    law = WaveLaw(sum_of(np.array([0.5, 0.5]), 2), 2, 1, 2, 1, 2.0, fixed=True)
    places = (np.arange(300) + 0.5) / 300
    assert law.slowest(np.full(300, 2.0), places).mean() == pytest.approx(1 + 1 / 3, abs=0.01)


def test_two_weights_on_two_lines_use_both_in_two_of_three_cases():
    law = LineLaw(sum_of(np.array([0.5, 0.5]), 2), 2, 1)
    places = (np.arange(300) + 0.5) / 300
    assert law.used(np.full(300, 2.0), places).mean() == pytest.approx(1 + 2 / 3, abs=0.01)


def test_samples_together_are_spread_evenly():
    every = np.concatenate([strata(i, 5, (2, 3)) for i in range(5)], axis=1)
    assert np.sort(every, axis=1) == pytest.approx(np.tile((np.arange(15) + 0.5) / 15, (2, 1)))


@given(st.integers(1, 40), st.sampled_from([2, 4, 8]), st.integers(1, 300), st.integers(0, 99))
@settings(max_examples=60)
def test_lines_that_share_a_group_add_up_to_what_the_group_has(groups, group, length, seed):
    rng = np.random.default_rng(seed)
    each = 1 + seed % group
    found = sums_kept(groups * group, group, length, each, rng)
    assert found.min() >= 0 and found.max() <= length
    np.testing.assert_array_equal(found.reshape(-1, group).sum(1), length * each)


@pytest.mark.parametrize(("kind", "density", "group"), [("2:4", 0.5, 4), ("balanced:64", 0.125, 64),
                                                        ("v_n_m:64,2,32", 0.0625, 32)])  # fmt: skip
def test_columns_hang_together_as_those_of_random_masks_do(kind, density, group):
    known = StatisticalMask(SHAPE, density, kind)
    masks = [mask.col_nnz for mask in drawn(kind, known.nnz)]
    ours = [way.col_nnz for way in known.variants]
    for counts in (*masks, *ours):
        sums = counts.reshape(-1, group).sum(1)
        assert (sums == sums[0]).all()
    for of in (np.var, lambda counts: np.count_nonzero(counts == 0)):
        theirs = np.mean([of(counts) for counts in masks])
        assert np.mean([of(counts) for counts in ours]) == pytest.approx(theirs, rel=0.08, abs=2)


@given(st.floats(0.01, 0.4), st.integers(2, 6), st.integers(0, 9))
@settings(max_examples=30)
def test_waves_in_turn_have_what_the_mask_has(share, waves, seed):
    law = WaveLaw(np.array([1.0 - share, share]), 32, 1, 32, 128, 32 * share, fixed=False)
    rng = np.random.default_rng(seed)
    drawn_totals = np.array([law.totals(rng.random(waves), waves) for _ in range(200)])
    np.testing.assert_array_equal(drawn_totals.sum(1), round(32 * share * waves))
    # As many as cells dealt out without looking: none of the waves is favoured.
    assert np.ptp(drawn_totals.mean(0)) <= 6.0 * drawn_totals.std() / 200**0.5 + 1e-9


@pytest.mark.parametrize(("block", "rows", "density"), [(8, 8, 0.1), (32, 4, 0.2), (8, 2, 0.5)])
def test_blocks_of_neurons_that_share_places_have_the_counts_of_projected_masks(
    block, rows, density
):
    law = np.array(shared_out(block, density * block, rows).counts)
    seen, cells = np.zeros(block + 1), 0
    for mask in drawn(f"balanced:{block},{rows}", round(density * 2**19), 4, (512, 1024)):
        counts = mask.array.reshape(512 // rows, rows, -1, block).sum(3)[:, 0]
        seen += np.bincount(counts.ravel(), minlength=block + 1)
        cells += counts.size
    assert law.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(seen / cells, law, atol=6.0 * (law / cells).max() ** 0.5)


@pytest.mark.parametrize(("blocks", "total"), [(32, 26), (32, 128), (128, 102)])
def test_counts_moved_until_they_add_up_vary_as_those_of_places_that_are_worth_most(blocks, total):
    rng, groups = np.random.default_rng(1), 500
    worth = np.sort(rng.random((groups, 8, blocks, 8)), axis=3).sum(axis=1).reshape(groups, -1)
    best = np.argpartition(worth, -total, axis=1)[:, -total:] // 8
    chosen = np.array([np.bincount(one, minlength=blocks).var() for one in best])
    cells, ours = shared_out(8, total / blocks, 8), np.zeros(groups)
    for i in range(groups):
        each = rng.choice(len(cells.counts), blocks, p=cells.counts)
        add_up(each, total, cells, rng)
        assert each.sum() == total
        ours[i] = each.var()
    error = ((chosen.var() + ours.var()) / groups) ** 0.5
    assert ours.mean() == pytest.approx(chosen.mean(), abs=4.0 * error)


@given(
    st.sampled_from([4, 8, 16]), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(1, 9),
    st.data(),
)  # fmt: skip
@settings(max_examples=30)
def test_counts_of_cells_are_moved_to_any_sum_they_can_have(size, of, density, blocks, data):
    cells, rng = shared_out(size, density * size, of), np.random.default_rng(0)
    each = rng.choice(len(cells.counts), blocks, p=cells.counts)
    total = data.draw(st.integers(0, blocks * size))
    add_up(each, total, cells, rng)
    assert each.sum() == total and each.min() >= 0 and each.max() <= size


@given(st.sampled_from([4, 8, 16]), st.integers(1, 12), st.floats(0.05, 0.95))
@settings(max_examples=30)
def test_shared_out_cells_have_their_mean(size, of, density):
    cells = shared_out(size, density * size, of)
    assert sum(cells.counts) == pytest.approx(1.0)
    assert cells.mean == pytest.approx(density * size, rel=1e-3, abs=1e-3)


def test_whether_a_mask_is_two_four_by_chance_is_as_likely_as_among_projected_masks():
    # Of 400 masks of this kind that were drawn, 365 were 2:4 along their rows.
    known = StatisticalMask((1024, 1024), 0.1, "balanced:8,8")
    assert np.mean([way.satisfies(NM(2, 4, 1)) for way in known.ways(400)]) == pytest.approx(
        365 / 400, abs=0.03
    )


@given(st.integers(1, 3), st.sampled_from([2, 4]), st.integers(0, 2))
@settings(max_examples=20)
def test_cells_within_n_of_m_are_counted_as_by_trying(groups, m, n):
    size = groups * m
    tried = np.zeros((size + 1, 2))
    for chosen in range(1 << size):
        bits = np.array([chosen >> i & 1 for i in range(size)])
        tried[bits.sum()] += 1, (bits.reshape(groups, m).sum(1) <= n).all()
    assert within_n_m(size, n, m) == pytest.approx(tried[:, 1] / tried[:, 0])


def test_counts_of_the_best_columns_vary_as_those_of_projected_masks():
    for m in (8, 32):
        blocks = [
            mask.array.reshape(4, 64, -1, m).sum(1)
            for mask in drawn(f"v_n_m:64,2,{m}", 2**18 * 2 // m, 8, (256, 1024))
        ]
        theirs = np.concatenate([counts[counts > 0] for counts in blocks]).var()
        rng = np.random.default_rng(0)
        own = [pattern(f"v_n_m:64,2,{m}").line_counts(1, (64, 4096), 2 / m, rng) for _ in range(8)]
        ours = np.concatenate([counts[counts > 0] for counts in own]).var()
        assert ours == pytest.approx(theirs, rel=0.08)


def test_what_happens_to_few_masks_is_asked_of_more_ways():
    sigma, known = load_device("sigma-like"), StatisticalMask((256, 1024), 0.02)
    op = gemm(512, 256, 1024, known, "grad_input", "bfloat16")
    each = [found[0].seconds for found in sigma.over_ways(op)]
    assert len(each) > sigma.ways
    assert spread(sigma, op) == pytest.approx(np.std(each))
    assert spread(sigma, op) > 0.0
    ideal = load_device("ideal")
    assert len(ideal.over_ways(op)) == ideal.ways and spread(ideal, op) == 0.0


@pytest.mark.parametrize(("kind", "density"), [
    ("unstructured", 0.1), ("fan_in", 0.1), ("2:4", 0.5), ("block:32,32", 0.25), ("group:32", 0.1),
    ("neuron", 0.5), ("neuron:1", 0.5), ("balanced:64", 0.125), ("balanced:8,8", 0.25),
    ("v_n_m:64,2,8", 0.25),
])  # fmt: skip
def test_an_example_is_of_the_pattern_and_each_way_has_its_own(kind, density):
    known = StatisticalMask(SHAPE, density, kind)
    one, other = (way.example() for way in known.ways(4)[:2])
    assert one.shape == SHAPE and one.satisfies(pattern(kind)) and one != other
    assert one.density == pytest.approx(known.density, rel=0.1)
    assert known.ways(4)[0].example() is one
