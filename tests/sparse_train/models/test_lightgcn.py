"""LightGCN against dense products with the adjacency, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwsim.errors import InputError
from sparse_train.data.ratings import generated
from sparse_train.models.lightgcn import LightGCN
from sparse_train.runs.config import TrainConfig
from sparse_train.sparsify import sparsify
from sparse_train.tasks.recommendation import PreparedRatings, Recommendation
from sparse_train.trainer import train
from sparse_train.workload import workload


def dense(model: LightGCN, users: np.ndarray, items: np.ndarray) -> tuple[torch.Tensor, ...]:
    """The propagated tables by dense products."""
    n, m = model.users.num_embeddings, model.items.num_embeddings
    adjacency = torch.zeros(n + m, n + m, dtype=torch.float64)
    adjacency[users, items + n] = adjacency[items + n, users] = 1.0
    root = adjacency.sum(1).clamp(min=1).rsqrt().diag()
    step = root @ adjacency @ root
    own = torch.cat([model.users.weight, model.items.weight]).double()
    powers = [torch.linalg.matrix_power(step, k) @ own for k in range(model.layers + 1)]
    mean = torch.stack(powers).mean(0)
    return mean[:n], mean[n:]


def test_two_users_who_share_an_item_by_hand():
    """User 0 took items 0 and 1, user 1 item 1. Edges weigh 1/√(degrees): 1/√2, 1/2, 1/√2."""
    model = LightGCN(2, 2, 1, (np.array([0, 0, 1]), np.array([0, 1, 1])), layers=1)
    nn.init.constant_(model.users.weight, 0.0)
    with torch.no_grad():
        model.users.weight[1] = 2.0
        model.items.weight.copy_(torch.tensor([[4.0], [8.0]]))
    users, items = model.tables()
    half, root = 1 / 2, 1 / np.sqrt(2)
    assert users[:, 0].tolist() == pytest.approx([(4 * root + 8 * half) / 2, (2 + 8 * root) / 2])
    assert items[:, 0].tolist() == pytest.approx([4 / 2, (8 + 2 * root) / 2])


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_tables_loss_and_gradients_are_those_of_dense_products(data):
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    every = [(u, i) for u in range(n) for i in range(m)]
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    users, items = (np.array(side) for side in zip(*chosen, strict=True))
    torch.manual_seed(0)
    model = LightGCN(n, m, 3, (users, items), layers=data.draw(st.integers(1, 3)))
    for mine, other in zip(model.tables(), dense(model, users, items), strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-5, atol=1e-7)
    asked = torch.from_numpy(users), torch.from_numpy(items), torch.zeros(len(users)).long()
    outcome = model(*asked)
    tables = [model.users.weight, model.items.weight]
    gradients = torch.autograd.grad(outcome.loss, tables)
    table, far = dense(model, users, items)
    margins = (table[asked[0]] * (far[asked[1]] - far[asked[2]])).sum(-1)
    expected = torch.autograd.grad(nn.functional.softplus(-margins).mean(), tables)
    torch.testing.assert_close(outcome.margins.double(), margins, rtol=1e-5, atol=1e-6)
    for mine, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_a_user_who_took_nothing_keeps_a_share_of_the_own_vector():
    model = LightGCN(2, 1, 4, (np.array([0]), np.array([0])), layers=3)
    users, _ = model.tables()
    torch.testing.assert_close(users[1], model.users.weight[1] / 4)
    assert bool(torch.isfinite(users).all())


def test_masked_weights_stay_zero_while_their_vectors_are_filled_by_neighbours():
    prepared = PreparedRatings(Recommendation(), generated(30, 50, 10, seed=2))
    torch.manual_seed(0)
    model = prepared.build_model("lightgcn", "small", {"width": 16, "layers": 2})
    assert isinstance(model, LightGCN)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    sparse = sparsify(model, optimizer, "rigl", density=0.2, layers=("users", "items"),
                      update_interval=2, total_steps=20)  # fmt: skip
    before = prepared.loss(model, prepared.batch(1, 64, 0)).item()
    for step in range(1, 11):
        optimizer.zero_grad()
        prepared.loss(model, prepared.batch(step, 64, 0)).backward()
        optimizer.step()
        sparse.step()
    assert prepared.loss(model, prepared.batch(1, 64, 0)).item() < before
    share = float((model.get_parameter("users.weight") != 0).float().mean())
    assert share < 0.4
    assert float((model.tables()[0] != 0).float().mean()) > 2 * share


def test_a_run_is_priced_and_better_than_chance(tmp_path):
    config = TrainConfig(
        task="recommendation", model="lightgcn", preset="small", algorithm="set", density=0.25,
        steps=60, batch_size=512, learning_rate=3e-2, warmup_steps=5, update_interval=20,
        eval_interval=60, test=True, threads=1,
    )  # fmt: skip
    record = train(config, tmp_path)
    assert record.test is not None
    assert record.test["ndcg@20"] > 0.06  # chance: 0.03
    assert set(record.masks(-1)) == {"users", "items"}


def test_propagation_is_priced_by_edges_width_and_layers():
    prepared = PreparedRatings(Recommendation(), generated(30, 50, 10, seed=2))
    model = prepared.build_model("lightgcn", "small", {"width": 16, "layers": 2})
    step = workload(model, prepared.batch(1, 64, 0))
    spread = [op for op in step.ops if op.kind == "embedding" and op.dense_flops]
    edges = 2 * len(prepared.parts["train"][0])
    # Two layers, forward and backward, an addition and a product for each number.
    assert sum(op.dense_flops for op in spread) == 2 * 2 * 2 * edges * 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, "layers: value is 0; allowed is an integer of at least 1"),
        ({"layers": "three"}, "layers"),
        ({"depth": 2}, "option of model lightgcn.*width, layers"),
        ({"width": 0}, "width"),
    ],
)
def test_bad_sizes_are_one_clear_line(options, words):
    prepared = PreparedRatings(Recommendation(), generated(30, 50, 10, seed=2))
    with pytest.raises(InputError, match=words):
        prepared.build_model("lightgcn", "small", options)


def test_an_edge_to_an_item_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="pairs: 1 are given; allowed is at least one, of users"):
        LightGCN(2, 2, 4, (np.array([0]), np.array([2])))
    with pytest.raises(InputError, match="pairs: 0 are given"):
        LightGCN(2, 2, 4, (np.array([], int), np.array([], int)))
