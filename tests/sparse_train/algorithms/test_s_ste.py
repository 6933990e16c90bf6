"""S-STE: what the model sees has no jumps, and all weights are trained."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import sparse_train
from hwsim import InputError
from sparse_train.algorithms.s_ste import SSTE
from sparse_train.patterns.n_m import NM

MATRIX = arrays(np.float32, (4, 10), elements=st.floats(-2, 2, width=32))


def seen(weight, pattern, scale=1.0):
    mask = pattern.project(abs(weight), budget(pattern))
    return SSTE().shows("a", weight, mask, pattern, {"scale": {"a": scale}})


def budget(pattern):
    return 4 * (2 * pattern.n + min(2, pattern.n)) if pattern.axis else 10 * pattern.n


def soft(row, n, m):
    """One line by the paper's formula: |w| less the next smaller than the n largest, or 0."""
    found = []
    for start in range(0, len(row), m):
        group = row[start : start + m]
        sizes = np.sort(abs(group))
        t = sizes[-n - 1] if len(group) > n else np.float32(0)
        found.append(np.sign(group) * np.maximum(abs(group) - t, 0))
    return np.concatenate(found)


def test_the_example_of_one_group():
    weight = np.array([[1.0, -3.0, 2.0, -0.5]], dtype=np.float32)
    mask = np.array([[False, True, True, False]])
    shown = SSTE().shows("a", weight, mask, NM(2, 4), {"scale": {"a": 2.0}})
    assert shown.tolist() == [[0.0, -4.0, 2.0, 0.0]]
    weight[0, 0] = 2.5  # Outgrew the third since the last update: what is seen stops at 0.
    shown = SSTE().shows("a", weight, mask, NM(2, 4), {"scale": {"a": 2.0}})
    assert shown.tolist() == [[0.0, -1.0, 0.0, 0.0]]


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(2, 4, axis=0)])
@given(weight=MATRIX)
def test_each_group_is_as_the_formula_says(pattern, weight):
    shown = seen(weight, pattern)
    lines, expected = (weight, shown) if pattern.axis else (weight.T, shown.T)
    for line, one in zip(lines, expected, strict=True):
        assert np.array_equal(abs(one), abs(soft(line, pattern.n, pattern.m)))
        assert np.all(one * line >= 0)


@given(
    weight=MATRIX,
    step=arrays(np.float32, (4, 10), elements=st.floats(-0.015625, 0.015625, width=32)),
)
def test_what_is_seen_has_no_jumps_where_masks_change(weight, step):
    before, after = seen(weight, NM(2, 4)), seen(weight + step, NM(2, 4))
    assert np.max(abs(after - before)) <= 2 * 0.015625 + 1e-6


@given(weight=MATRIX)
def test_tensors_show_the_same_bits(weight):
    pattern = NM(2, 4)
    mask = pattern.project(abs(weight), budget(pattern))
    state = {"scale": {"a": 1.25}}
    on_host = SSTE().shows("a", weight, mask, pattern, state)
    tensors = [torch.from_numpy(values.copy()) for values in (weight, mask)]
    assert np.array_equal(SSTE().shows("a", *tensors, pattern, state).numpy(), on_host)


def test_training_is_the_straight_through_loop():
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 6, bias=False)
    dense = model.weight.detach().clone().requires_grad_()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    sparsifier = sparse_train.sparsify(
        model, optimizer, algorithm="s_ste", density=0.5, total_steps=20, layers="all"
    )
    by_hand = torch.optim.SGD([dense], 0.5, momentum=0.9)
    first = np.concatenate([soft(row, 2, 4)[None] for row in dense.detach().numpy()])
    scale = float((dense.detach().numpy() * first).sum() / (first * first).sum())
    masks = set()
    for step in range(12):
        shown = np.concatenate([soft(row, 2, 4)[None] for row in dense.detach().numpy()]) * scale
        assert np.allclose(model.weight.detach().numpy(), shown, atol=1e-5), step
        masks.add((shown != 0).tobytes())
        batch = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        for one in (optimizer, by_hand):
            one.zero_grad()
        weight = torch.from_numpy(shown.astype(np.float32)).requires_grad_()
        (batch @ weight.T - batch[:, :6]).square().mean().backward()
        dense.grad = weight.grad
        (model(batch) - batch[:, :6]).square().mean().backward()
        optimizer.step()
        by_hand.step()
        sparsifier.step()
    assert len(masks) > 1  # Masks changed on the way.


def test_only_n_of_m_is_taken():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(InputError, match="the threshold is that of a group"):
        sparse_train.sparsify(
            model, optimizer, algorithm="s_ste", density=0.5, pattern="unstructured", total_steps=9
        )
