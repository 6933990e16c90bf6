"""What an update of each rule is, written down once; both trainers do just that.

`rule` is the statement: plain, slow, for one layer. The algorithms (one network, any pattern) and
the populations (many networks, unstructured masks) are held against it.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_population import population

from sparse_train.algorithms import ALGORITHMS
from sparse_train.algorithms._base import View
from sparse_train.patterns import projection

# Rule → the score by which weights are dropped, and by which they are grown; "any" is chance.
RULES = {
    "rigl": ("|w|", "|g|"),
    "set": ("|w|", "any"),
    "magnitude_random": ("|w|", "any"),
    "random_random": ("any", "any"),
}


def rule(name, weights, gradients, mask, wanted, share):
    """(must, may): places that are active after the update for certain, and by chance.

    Of n active weights ⌊n · share⌋ are dropped, the lowest by the first score, more if more than
    `wanted` are left; what is missing is grown from all that were not kept, highest by the second
    score first. Of equal scores the one that comes first is kept or grown.
    """
    drop, grow = RULES[name]
    active = [i for i in range(len(mask)) if mask[i]]
    n = len(active)
    keep = min(n - math.floor(n * Fraction(share).limit_denominator(1000)), wanted)
    if drop == "any":
        return set(), set(range(len(mask)))
    kept = set(sorted(active, key=lambda i: (-abs(weights[i]), i))[:keep])
    others = [i for i in range(len(mask)) if i not in kept]
    if grow == "any":
        return kept, set(others) if wanted > keep else set()
    grown = sorted(others, key=lambda i: (-abs(gradients[i]), i))[: wanted - keep]
    return kept | set(grown), set()


def holds(name, before, after, weights, gradients, wanted, share):
    must, may = rule(name, weights, gradients, before, wanted, share)
    active = {i for i in range(len(after)) if after[i]}
    assert len(active) == wanted
    assert must <= active <= must | may
    if RULES[name][0] == "any":
        n = int(np.sum(before))
        keep = min(n - math.floor(n * Fraction(share).limit_denominator(1000)), wanted)
        assert len(active & set(np.flatnonzero(before))) >= keep


@st.composite
def layers(draw):
    """Weights, gradients and mask of a layer, a number that is wanted, a share to drop."""
    size = draw(st.integers(1, 60))
    # Few values, so that scores are often equal.
    values = st.integers(-4, 4).map(float)
    weights = np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    gradients = np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32)
    mask = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    wanted = draw(st.integers(0, size))
    share = draw(st.integers(0, 20)) / 20
    return weights * mask, gradients, mask, wanted, share


@settings(max_examples=150, deadline=None)
@given(layers(), st.sampled_from(sorted(RULES)), st.integers(0, 99))
def test_an_algorithm_does_what_its_rule_says(layer, name, seed):
    weights, gradients, mask, wanted, share = layer
    view = View(
        1, {"a": weights[None]}, {"a": mask[None]}, {"a": wanted}, {"a": gradients[None]}, share,
        projection("unstructured"), np.random.default_rng(seed), update=1,
    )  # fmt: skip
    algorithm = ALGORITHMS.get(name)()
    after = algorithm.update(view, algorithm.start(view)).masks["a"][0]
    holds(name, mask, after, weights, gradients, wanted, share)


@pytest.fixture(scope="module")
def made():
    return population(1)[1]


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(sorted(RULES)), st.integers(0, 99))
def test_a_population_does_what_the_rule_says(made, data, name, seed):
    a, b = made.starts[0], made.ends[0]
    size = int(b - a)
    values = st.lists(st.integers(-4, 4).map(float), min_size=size, max_size=size)
    weights = np.array(data.draw(values), np.float32)
    gradients = np.array(data.draw(values), np.float32)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    wanted, share = data.draw(st.integers(0, size)), data.draw(st.integers(0, 20)) / 20
    made.mask[0, a:b] = torch.from_numpy(mask.astype(np.uint8))
    made.weights[0, a:b] = torch.from_numpy(weights * mask)
    made.gradients[0, a:b] = torch.from_numpy(gradients)
    made.nnz[0, 0] = int(mask.sum())
    nnz = made.nnz[[0]].clone()
    nnz[0, 0] = wanted
    drop, grow = RULES[name]
    made.update(
        torch.arange(1), nnz, [seed], drop_fraction=share,
        drop="magnitude" if drop == "|w|" else "random",
        grow="gradient" if grow == "|g|" else "random",
    )  # fmt: skip
    after = made.mask[0, a:b].numpy().astype(bool)
    holds(name, mask, after, weights * mask, gradients, wanted, share)
