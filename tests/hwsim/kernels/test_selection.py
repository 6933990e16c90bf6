import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError
from hwsim.kernels.cpu.selection import drop_grow_mask, top_k_mask

# Few distinct values: nearly every draw has ties at the threshold, signed zeros included.
TIED = st.sampled_from([-np.inf, -2.0, -1.0, -0.0, 0.0, 1e-45, 1.0, 1.0000001, 2.0, np.inf])
ANY = st.floats(allow_nan=False, width=32)


def ranked(scores):
    """Positions, best first: by score, then by index."""
    flat = scores.reshape(-1).astype(np.float64)
    return np.lexsort((np.arange(flat.size), -flat))


def oracle(scores, k, candidates=None):
    order = ranked(scores)
    if candidates is not None:
        order = order[candidates.reshape(-1)[order]]
    out = np.zeros(scores.size, bool)
    out[order[:k]] = True
    return out.reshape(scores.shape)


def oracle_drop_grow(weights, gradients, mask, n_drop):
    kept = oracle(np.abs(weights), int(mask.sum()) - n_drop, mask)
    return kept | oracle(np.abs(gradients), n_drop, ~kept)


@st.composite
def score_arrays(draw):
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    values = draw(st.lists(st.one_of(TIED, ANY), min_size=rows * columns, max_size=rows * columns))
    array = np.array(values, np.float32)
    return array if draw(st.booleans()) else array.reshape(rows, columns)


@settings(deadline=None)
@given(score_arrays(), st.data())
def test_top_k_equals_a_full_sort(scores, data):
    k = data.draw(st.integers(0, scores.size))
    threads = data.draw(st.sampled_from([None, 1, 2, 3]))
    np.testing.assert_array_equal(top_k_mask(scores, k, threads=threads), oracle(scores, k))
    by_size = top_k_mask(scores, k, by_magnitude=True)
    np.testing.assert_array_equal(by_size, oracle(np.abs(scores), k))


@settings(deadline=None)
@given(score_arrays(), st.data())
def test_top_k_takes_candidates_only(scores, data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    candidates = np.random.default_rng(seed).random(scores.shape) < 0.5
    k = data.draw(st.integers(0, int(candidates.sum())))
    chosen = top_k_mask(scores, k, candidates)
    np.testing.assert_array_equal(chosen, oracle(scores, k, candidates))


@settings(deadline=None)
@given(score_arrays(), st.data())
def test_drop_grow_equals_two_sorts(weights, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    gradients = rng.choice(weights.reshape(-1), weights.shape)
    mask = rng.random(weights.shape) < data.draw(st.floats(0, 1))
    n_drop = data.draw(st.integers(0, int(mask.sum())))
    result = drop_grow_mask(weights, gradients, mask, n_drop)
    np.testing.assert_array_equal(result, oracle_drop_grow(weights, gradients, mask, n_drop))
    assert result.sum() == mask.sum()


KINDS = ["normal", "equal", "two values", "ascending", "rounded", "every sixth high", "low"]


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_threads_and_a_misleading_sample_do_not_change_the_answer(kind):
    rng = np.random.default_rng(7)
    size = 24 * 2048 + 517  # a sample of it is every sixth score
    sixth = np.arange(size) % 6 == 0
    scores = {
        "every sixth high": rng.random(size) + sixth,
        "low": rng.random(size) - sixth,
        "normal": rng.standard_normal(size),
        "equal": np.full(size, 0.25),
        "two values": rng.choice([-1.0, 1.0], size),
        "ascending": np.arange(size) / size,
        "rounded": np.round(rng.standard_normal(size), 1),
    }[kind].astype(np.float32)
    best = ranked(scores)
    candidates = rng.random(size) < 0.3
    among = best[candidates[best]]
    for k in (0, 1, size // 10, size - 1, size):
        for threads in (1, 2, 4):
            taken = top_k_mask(scores, k, threads=threads)
            np.testing.assert_array_equal(np.flatnonzero(taken), np.sort(best[:k]))
        some = min(k, len(among))
        taken = top_k_mask(scores, some, candidates)
        np.testing.assert_array_equal(np.flatnonzero(taken), np.sort(among[:some]))


def test_ties_go_to_the_lowest_index():
    scores = np.array([1, 2, 2, 2, 0], np.float32)
    assert top_k_mask(scores, 2).tolist() == [False, True, True, False, False]


def test_signed_zeros_are_equal():
    scores = np.array([0.0, -0.0, 0.0, -1.0], np.float32)
    assert top_k_mask(scores, 2).tolist() == [True, True, False, False]


def test_a_dropped_weight_may_grow_back():
    weights, gradients = np.array([3, 1, 0], np.float32), np.array([0, 9, 2], np.float32)
    mask = np.array([True, True, False])
    assert drop_grow_mask(weights, gradients, mask, 1).tolist() == [True, True, False]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_scores_that_must_be_finite_are_looked_at_everywhere(odd):
    scores = np.array([odd, 1, 2], np.float32)
    for candidates in (None, np.array([False, True, True])):
        with pytest.raises(InputError, match="scores: NaN or infinity"):
            top_k_mask(scores, 1, candidates, finite=True)


def test_what_cannot_be_taken_may_be_nan():
    scores = np.array([np.nan, 1, 2], np.float32)
    assert top_k_mask(scores, 1, np.array([False, True, True])).tolist() == [False, False, True]
    mask = np.array([False, True, False])
    gradients = np.array([1, 0, 0], np.float32)
    assert drop_grow_mask(scores, gradients, mask, 1).tolist() == [True, False, False]


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.array([1, np.nan], np.float32), 1), "scores: a value is nan"),
        ((np.array([-np.nan, 1], np.float32), 1), "scores: a value is nan"),
        ((ONES.astype(np.float64), 1), "scores: type is float64"),
        (([1.0, 2.0], 1), "scores: type is list"),
        ((ONES.T, 1), "C-contiguous"),
        ((np.ones((2, 2, 2), np.float32), 1), "shape"),
        ((np.ones(0, np.float32), 0), "shape"),
        ((ONES, 7), "k: value is 7"),
        ((ONES, -1), "k: value is -1"),
        ((ONES, 1.0), "k: value is 1.0"),
        ((ONES, True), "k: value is True"),
        ((ONES, 1, np.ones(6, bool)), "candidates: shape"),
        ((ONES, 1, np.ones((2, 3))), "candidates: type is float64"),
        ((ONES, 1, np.zeros((2, 3), bool)), "k: value is 1; allowed is an integer 0 … 0"),
    ],
)
def test_bad_input_of_top_k_is_named(arguments, words):
    with pytest.raises(InputError, match=words):
        top_k_mask(*arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gradients": np.ones((3, 2), np.float32)}, "gradients: shape"),
        ({"gradients": np.full((2, 3), np.nan, np.float32)}, "gradients: a value is nan"),
        ({"weights": np.full((2, 3), np.nan, np.float32)}, "weights: a value is nan"),
        ({"mask": np.ones((3, 2), bool)}, "mask: shape"),
        ({"mask": np.ones((2, 3), np.uint8)}, "mask: type is uint8"),
        ({"n_drop": 7}, "n_drop: value is 7"),
        ({"n_drop": -1}, "n_drop: value is -1"),
        ({"threads": 0}, "threads: value is 0"),
    ],
)
def test_bad_input_of_drop_grow_is_named(change, words):
    mask = np.ones((2, 3), bool)
    mask[0, 0] = False
    arguments = {"weights": ONES, "gradients": ONES, "mask": mask, "n_drop": 1, **change}
    with pytest.raises(InputError, match=words):
        drop_grow_mask(**arguments)
