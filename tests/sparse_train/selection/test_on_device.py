"""Selection in torch is the host's to the bit: over every algorithm and pattern that can.

On tensors of the CPU, which run the very code that a GPU does.
"""

import copy
import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError
from sparse_train.algorithms import ALGORITHMS
from sparse_train.patterns import projection
from sparse_train.patterns.block import Block
from sparse_train.selection import arrays, top_k
from sparse_train.testing import matrices, shapes, views

PATTERNS = (
    "unstructured", "fan_in", "2:4", "n_m:1,3", "n_m:2,4,0", "balanced:4", "block:2,3",
    Block(3, 2, "max"), "neuron:0", "neuron:1",
    "v_n_m:2,2,6", "v_n_m:3,2,4",
)  # fmt: skip
quiet = settings(deadline=None, max_examples=25)


def tensors(value):
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {key: tensors(item) for key, item in value.items()}
    return value


def same(one, other):
    if isinstance(one, np.ndarray):
        assert torch.is_tensor(other)
        found = other.numpy()
        return one.dtype == found.dtype and one.tobytes() == found.tobytes()
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other


def on_device(view):
    return dataclasses.replace(
        view, weights=tensors(view.weights), masks=tensors(view.masks),
        gradients=tensors(view.gradients), rng=copy.deepcopy(view.rng),
    )  # fmt: skip


CASES = [
    (name, text)
    for name in ALGORITHMS.names()
    for text in PATTERNS
    if not ALGORITHMS.get(name).patterns or projection(text).name in ALGORITHMS.get(name).patterns
]


@pytest.mark.parametrize(("name", "text"), CASES, ids=str)
@quiet
@given(data=st.data())
def test_every_update_has_the_bits_of_the_host(name, text, data):
    rule, pattern = ALGORITHMS.get(name)(), projection(text)
    prunes = rule.first_mask == "dense"
    view = data.draw(views(pattern, smaller=prunes, within=not rule.update_interval))
    there = on_device(view)
    state = rule.start(dataclasses.replace(view, rng=copy.deepcopy(view.rng)))
    state_there = rule.start(on_device(view))
    assert same(state, state_there)
    try:
        host = rule.update(view, state)
    except InputError as error:
        with pytest.raises(InputError) as found:
            rule.update(there, state_there)
        assert str(found.value) == str(error)
        return
    device = rule.update(there, state_there)
    for one, other in zip(host, device, strict=True):
        assert same(one, other)


def test_every_member_says_where_it_selects():
    able = {n for n in ALGORITHMS.names() if vars(ALGORITHMS.get(n)).get("on_device", False)}
    assert set(ALGORITHMS.names()) == able
    for text in PATTERNS:
        assert projection(text).on_device, text
        assert "on_device" in vars(type(projection(text)))
    for text in ("transposable_n_m", "group:4", "balanced:4,2"):
        assert not projection(text).on_device, text


@quiet
@given(st.data())
def test_top_k_breaks_ties_as_the_host_does(data):
    shape = data.draw(shapes())
    scores = data.draw(matrices(shape))
    scores[scores == 1] = data.draw(st.sampled_from([-0.0, 1e-45, 3.4e38]))
    candidates = data.draw(st.sampled_from([None, scores > 0, scores != 2]))
    most = scores.size if candidates is None else int(candidates.sum())
    k = data.draw(st.integers(0, most))
    host = top_k(scores, k, candidates)
    device = top_k(torch.from_numpy(scores), k, tensors(candidates))
    assert np.array_equal(host, device.numpy())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_alike(bad):
    scores = np.float32([[1, bad, 2]])
    allowed = np.array([[True, False, True]])
    for given_scores, mask in ((scores, allowed), (torch.tensor(scores), torch.tensor(allowed))):
        with pytest.raises(InputError, match="NaN or infinity"):
            top_k(given_scores, 0, mask)


@pytest.mark.parametrize("k", [-1, 4, True, 1.0])
def test_a_count_out_of_range_is_refused_alike(k):
    scores = np.float32([3, 1, 2])
    errors = []
    for one in (scores, torch.tensor(scores)):
        with pytest.raises(InputError) as found:
            top_k(one, k)
        errors.append(str(found.value))
    assert errors[0] == errors[1]


@quiet
@given(st.data())
def test_sums_have_one_order(data):
    shape = data.draw(shapes(40))
    values = data.draw(matrices(shape)) * np.float32(1e-3)
    for axis in (0, 1):
        host, device = arrays.sums(values, axis), arrays.sums(torch.from_numpy(values), axis)
        assert host.tobytes() == device.numpy().tobytes()
        assert host == pytest.approx(values.sum(axis=axis, dtype=np.float64), abs=1e-9)
