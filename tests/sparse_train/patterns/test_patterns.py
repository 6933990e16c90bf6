"""Projections against reference cases and against their definitions."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Mask
from hwsim import patterns as definitions
from sparse_train import sparsify
from sparse_train.patterns import PATTERNS, projection
from sparse_train.patterns.block import Block
from sparse_train.patterns.n_m import NM
from sparse_train.patterns.transposable_n_m import TransposableNM
from sparse_train.testing import OPTIMIZERS, check_invariants, small_model, train_step

DATA = json.loads((Path(__file__).parents[2] / "data" / "patterns.json").read_text())
SPECS = (
    "unstructured", "2:4", "n_m:1,4", "n_m:2,4,0", "transposable_n_m", "transposable_n_m:1,3",
    "fan_in", "balanced:4", "balanced:4,3", "balanced:3,2", "group:3", "block:2,3",
    "block:4,4", "neuron", "neuron:1",
    "v_n_m:2,2,8", "v_n_m:3,2,5",
)  # fmt: skip
FIXED = {"2:4": 0.5, "n_m:1,4": 0.25, "n_m:2,4,0": 0.5, "transposable_n_m": 0.5,
         "transposable_n_m:1,3": 1 / 3, "v_n_m:2,2,8": 0.25, "v_n_m:3,2,5": 0.4}  # fmt: skip


def bits(text):
    return np.frombuffer(text.encode(), dtype=np.uint8) == ord("1")


def matrix(array):
    return np.ascontiguousarray(array.reshape(array.shape[0], -1))


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda c: f"{c['pattern']}-{c['scores_key']}")
def test_masks_are_those_of_jaxpruner(case):
    shape = case["shape"]
    scores = np.array(DATA["scores"][case["scores_key"]], dtype=np.float32).reshape(shape)
    expected = bits(case["mask"]).reshape(shape)
    density = 1 - case.get("sparsity", 0)
    if case["pattern"] == "N:M":
        rule = NM(case["n"], case["m"], 1 if case["axis"] == -1 else 0)
        density = case["n"] / case["m"]
    elif case["pattern"] == "block":
        # A block of channels holds their whole kernels; inputs are (channel, height, width).
        rows, channels = case["block"]
        kernel = int(np.prod(shape[2:]))
        rule = Block(rows, channels * kernel, "mean" if case["avg_pool"] else "max")
    elif case["pattern"] == "channel":
        rule = projection(f"neuron:{case['axis']}")
    else:
        rule = projection("unstructured")
    found = rule.project(matrix(scores), max(1, round(density * scores.size)))
    assert np.array_equal(found, matrix(expected))


@pytest.mark.parametrize("case", DATA["nm_and_srste"], ids=lambda c: c["how"][:12])
def test_n_m_masks_are_those_of_other_codes(case):
    weight = np.array(case["weight"], dtype=np.float32).reshape(case["shape"])
    kept = np.array(case.get("sparse_weight", case.get("mask"))).reshape(case["shape"]) != 0
    if "NHWC" in case["how"]:
        weight, kept = (a.transpose(0, 2, 3, 1) for a in (weight, kept))
    weight, kept = matrix(weight), matrix(kept)
    rule = NM(case["n"], case["m"])
    found = rule.project(np.abs(weight), weight.size * case["n"] // case["m"])
    assert np.array_equal(found, kept)


@st.composite
def cases(draw):
    spec = draw(st.sampled_from(SPECS))
    shape = draw(st.tuples(st.integers(1, 13), st.integers(1, 13)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = rng.integers(0, draw(st.sampled_from([3, 10**6])), shape).astype(np.float32)
    size = shape[0] * shape[1]
    budget = round(size * FIXED[spec]) if spec in FIXED else draw(st.integers(0, size))
    return projection(spec), scores, budget


@settings(deadline=None, max_examples=300)
@given(cases())
def test_every_projection_satisfies_its_definition_exactly(case):
    rule, scores, budget = case
    mask = rule.project(scores, budget)
    assert mask.dtype == bool and mask.shape == scores.shape
    assert Mask(mask).satisfies(rule.definition)
    assert rule.units(mask) == rule.capacity(scores.shape, budget)
    assert mask.any() == (budget > 0)
    assert np.array_equal(mask, rule.project(scores.copy(), budget))


@settings(deadline=None, max_examples=300)
@given(cases(), st.floats(0, 1))
def test_keep_and_fill_stay_in_the_pattern_and_keep_what_was_kept(case, share):
    rule, scores, budget = case
    mask = rule.project(scores, budget)
    rng = np.random.default_rng(0)
    units = int(share * rule.units(mask))
    kept = rule.keep(rng.random(scores.shape, dtype=np.float32), mask, units, budget)
    assert not (kept & ~mask).any()
    grown = rule.fill(rng.random(scores.shape, dtype=np.float32), kept, budget)
    assert Mask(grown).satisfies(rule.definition)
    assert rule.units(grown) == rule.capacity(scores.shape, budget)
    if rule.name != "transposable_n_m":
        assert not (kept & ~grown).any()


@settings(deadline=None, max_examples=200)
@given(cases())
def test_keeping_everything_changes_nothing(case):
    rule, scores, budget = case
    mask = rule.project(scores, budget)
    kept = rule.keep(scores, mask, rule.units(mask), budget)
    assert np.array_equal(kept, mask)
    assert np.array_equal(rule.fill(scores[::-1].copy(), kept, budget), mask)


@settings(deadline=None, max_examples=300)
@given(cases())
def test_packed_and_unpacked_is_the_same_matrix(case):
    rule, scores, budget = case
    mask = Mask(rule.project(scores, budget))
    values = np.random.default_rng(1).standard_normal(scores.shape).astype(np.float32)
    packed = rule.definition.pack(mask, values)
    assert np.array_equal(rule.definition.unpack(packed), np.where(mask.array, values, 0))
    assert packed.value_bytes >= 4 * mask.nnz


@pytest.mark.parametrize("spec", [s for s in SPECS if s not in FIXED])
def test_the_budget_is_never_exceeded_where_the_shape_divides(spec):
    rule = projection(spec)
    scores = np.random.default_rng(0).random((12, 24), dtype=np.float32)
    for budget in range(24, 289):
        nnz = int(rule.project(scores, budget).sum())
        assert nnz <= budget
        if spec == "unstructured":
            assert nnz == budget
        if spec == "fan_in":
            assert nnz == budget // 12 * 12


def test_transposable_is_the_best_of_all_tiles():
    rng = np.random.default_rng(3)
    rows = [r for r in itertools.product((0, 1), repeat=4) if sum(r) == 2]
    legal = [np.array(t) for t in itertools.product(rows, repeat=4) if not (np.sum(t, 0) - 2).any()]
    assert len(legal) == 90
    for _ in range(200):
        scores = rng.integers(0, 6, (4, 4)).astype(np.float32)
        found = TransposableNM(2, 4).project(scores, 8)
        assert (scores * found).sum() == max((scores * tile).sum() for tile in legal)


def test_transposable_eight_is_better_than_greedy_and_legal():
    scores = np.random.default_rng(0).random((16, 24), dtype=np.float32)
    found = TransposableNM(4, 8).project(scores, 192)
    assert (found.sum(axis=0) == 8).all() and (found.sum(axis=1) == 12).all()


def test_by_hand():
    scores = np.array([[4, 1, 2, 3], [1, 9, 8, 7], [5, 6, 0, 0]], dtype=np.float32)
    t, f = True, False
    assert projection("2:4").project(scores, 6).tolist() == [
        [t, f, f, t], [f, t, t, f], [t, t, f, f]]  # fmt: skip
    assert projection("fan_in").project(scores, 5).tolist() == [
        [t, f, f, f], [f, t, f, f], [f, t, f, f]]  # fmt: skip
    assert projection("fan_in").project(scores, 2).tolist() == [
        [f, f, f, f], [f, t, f, f], [f, t, f, f]]  # fmt: skip
    assert projection("neuron").project(scores, 4).tolist() == [
        [f, f, f, f], [t, t, t, t], [f, f, f, f]]  # fmt: skip
    assert projection("balanced:2").project(scores, 6).tolist() == [
        [t, f, f, t], [f, t, t, f], [f, t, t, f]]  # fmt: skip


def test_regrouping_puts_neurons_with_the_same_inputs_together():
    rule = projection("group:2")
    scores = np.full((4, 6), 0.1, dtype=np.float32)
    scores[[0, 2], :2] = 1.0
    scores[[1, 3], 4:] = 1.0
    neighbours = rule.project(scores, 8)
    mixed = rule.regroup(scores, 8)
    assert (scores * mixed).sum() == 8.0 > (scores * neighbours).sum()
    assert Mask(mixed).satisfies(rule.definition)


def test_each_pattern_is_told_from_the_others():
    broken = np.zeros((8, 8), dtype=bool)
    broken[0, :3] = True
    broken[1:3, 2] = True
    broken[5, 7] = True
    for spec in SPECS:
        assert Mask(broken).satisfies(definitions.pattern(spec)) == (spec == "unstructured")


def test_definitions_and_projections_have_the_same_names():
    assert PATTERNS.names() == definitions.PATTERNS.names()
    for spec in SPECS:
        assert projection(spec).definition == definitions.pattern(spec)


def test_packing_a_mask_of_another_pattern_is_refused():
    with pytest.raises(InputError, match="is not of pattern"):
        definitions.pattern("2:4").pack(Mask(np.ones((4, 4), dtype=bool)), np.ones((4, 4)))
    with pytest.raises(InputError, match="values: shape"):
        definitions.pattern("2:4").pack(Mask(np.ones((4, 4), dtype=bool)), np.ones((3, 4)))


@pytest.mark.parametrize("budget", [10, 40, 100])
@pytest.mark.parametrize("spec", ["2:4", "n_m:1,4", "transposable_n_m", "v_n_m:3,2,4"])
def test_a_density_that_the_pattern_cannot_have_is_refused(spec, budget):
    with pytest.raises(InputError, match=r"density is .*; allowed is 0\.\d+ for every layer"):
        projection(spec).project(np.ones((10, 10), dtype=np.float32), budget)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(spec, bad):
    scores = np.ones((12, 12), dtype=np.float32)
    scores[3, 4] = bad
    budget = round(144 * FIXED.get(spec, 0.5))
    with pytest.raises(InputError, match="NaN or infinity"):
        projection(spec).project(scores, budget)


@pytest.mark.parametrize(
    "text",
    ["n_m:5,4", "n_m:0,4", "block:0,4", "block:a", "neuron:2", "neuron:0,1,2", "blok", 3,
     "v_n_m:0,2,8", "v_n_m:64,1,8", "v_n_m:64,2,3"],
)  # fmt: skip
def test_patterns_that_do_not_exist_are_refused(text):
    for make in (projection, definitions.pattern):
        with pytest.raises(InputError, match="pattern"):
            make(text)


def test_neurons_are_permuted_into_groups_that_want_the_same_inputs_every_so_many_updates():
    pattern = projection("group:2,3")
    # Neighbours share inputs; the large weights of rows 0 and 2, and of 1 and 3, lie together.
    mask = pattern.project(np.ones((4, 4), np.float32), 8)
    weights = np.array([[9, 8, 0, 0], [0, 0, 9, 8], [9, 7, 0, 0], [0, 0, 9, 7]], np.float32)
    for update in (0, 1, 2, 4):
        assert pattern.rearranged(weights, mask, 8, update) is mask
    assert np.array_equal(pattern.rearranged(weights, mask, 8, 3), weights > 0)
    assert projection("group:2").rearranged(weights, mask, 8, 3) is mask


@pytest.mark.parametrize("algorithm", ["set", "rigl", "magnitude_random"])
def test_an_update_that_permutes_groups_starts_new_weights_at_zero_and_keeps_the_budget(algorithm):
    def trained(pattern):
        model = small_model()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        sparsifier = sparsify(
            model, optimizer, algorithm, 0.4, pattern, schedule="constant", update_interval=2,
            total_steps=20,
        )  # fmt: skip
        for step in range(4):
            before = {n: m.array for n, m in sparsifier.masks().items()}
            train_step(model, optimizer, sparsifier, step)
            check_invariants(sparsifier, optimizer)
            for name, layer in sparsifier.layers.items():
                grown = sparsifier.masks()[name].array & ~before[name]
                assert not layer.array(layer.parameter)[grown].any()
        return sparsifier.masks()

    kept, permuted = trained("group:3"), trained("group:3,1")
    assert kept != permuted
    assert {n: m.nnz for n, m in kept.items()} == {n: m.nnz for n, m in permuted.items()}
