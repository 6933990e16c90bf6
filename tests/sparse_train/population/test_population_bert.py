"""Gradients that are written out against those of torch.func.vmap."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from _population_laws import check_metrics_of_each
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_train.models.bert import Bert, BertConfig
from sparse_train.models.mlp import Mlp
from sparse_train.population import bert as written
from sparse_train.population.train import Population
from sparse_train.tasks import make_task

OPTIONS = {"vocabulary_size": 262, "tokens": 6, "hidden_share": 0.34, "evaluation_windows": 32}
SMALL = {"layers": 1, "width": 8, "heads": 1, "ffn": 16}


@pytest.fixture(scope="module")
def task():
    return make_task("mlm", OPTIONS).prepare()


def population(task, size: int, **options) -> Population:
    made = Population(task, task.build_model("bert", "tiny", {**SMALL, **options}), size)
    rng = torch.Generator().manual_seed(size)
    initial = [made.flat(task.build_model("bert", "tiny", {**SMALL, **options}))] * size
    made.start(torch.arange(size), torch.stack(initial))
    made.weights += 0.1 * torch.randn(made.weights.shape, generator=rng)
    return made


def batches(task, size: int):
    each = [task.batch(1, 4, seed) for seed in range(size)]
    return {name: torch.stack([batch[name] for batch in each]) for name in each[0]}


def both(made: Population, batch):
    """(gradients, losses, seen), written out and vmapped."""
    views = made._views(made.weights)
    own = written.differentiate(made._module.model, views, batch, made.names)
    return own, made._vmapped(views, batch, watch=True)


def assert_close(own, other):
    assert own[0].keys() == other[0].keys()
    for name, gradient in own[0].items():
        torch.testing.assert_close(gradient, other[0][name], rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(own[1], other[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own[2], other[2], rtol=1e-4, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(
    size=st.integers(1, 3), layers=st.integers(1, 2), heads=st.sampled_from([1, 2]),
    tied=st.booleans(),
)  # fmt: skip
def test_gradients_losses_and_outputs_are_those_of_vmap(task, size, layers, heads, tied):
    made = population(task, size, layers=layers, heads=heads, tied=tied)
    assert_close(*both(made, batches(task, size)))


def test_labels_that_are_not_counted_change_nothing(task):
    made = population(task, 2)
    batch = batches(task, 2)
    batch["labels"][:, :2, 0] = -100
    assert_close(*both(made, batch))


def test_more_networks_than_are_done_at_once_are_each_done(task, monkeypatch):
    monkeypatch.setattr(written, "_AT_ONCE", 2)
    made = population(task, 5)
    assert_close(*both(made, batches(task, 5)))
    whole = written.measure(made._module.model, made._views(made.weights), task.batch(1, 4, 0))
    assert whole["loss"].shape == (5,)


def test_metrics_are_those_of_each_network_alone(task):
    check_metrics_of_each(population(task, 3), task)


def test_a_network_whose_weights_are_nan_has_a_nan_loss_and_spoils_no_other(task):
    made = population(task, 2)
    clean = written.differentiate(
        made._module.model, made._views(made.weights), batches(task, 2), ()
    )
    made.weights[0] = torch.nan
    _, losses, _ = written.differentiate(
        made._module.model, made._views(made.weights), batches(task, 2), ()
    )
    assert bool(torch.isnan(losses[0]))
    assert float(losses[1]) == float(clean[1][1])


def test_other_models_and_tasks_are_left_to_vmap(task):
    model = task.build_model("bert", "tiny", SMALL)
    assert written.fits(model, task)
    assert not written.fits(Mlp((4, 2)), task)
    assert not written.fits(model, make_task("images", {}).prepare())
    assert not written.fits(Bert(dataclasses.replace(BertConfig(), **SMALL)).double(), task)
