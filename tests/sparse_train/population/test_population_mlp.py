"""Gradients of perceptrons that are written out against those of torch.func.vmap."""

from __future__ import annotations

import pytest
import torch
from _population_laws import check_metrics_of_each
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_train.classifier import ImageClassifier
from sparse_train.models.mlp import Mlp
from sparse_train.population import mlp as written
from sparse_train.population.train import Population
from sparse_train.tasks import make_task


@pytest.fixture(scope="module")
def task():
    return make_task("images", {"data": "digits"}).prepare()


def network(widths=(64, 8, 10)):
    return ImageClassifier(nn.Sequential(nn.Flatten(), Mlp(widths)))


def population(task, size, widths=(64, 8, 10)):
    torch.manual_seed(size)
    made = Population(task, network(widths), size)
    made.start(torch.arange(size), torch.stack([made.flat(network(widths)) for _ in range(size)]))
    return made


def batches(task, size):
    each = [task.batch(1, 16, seed) for seed in range(size)]
    return {name: torch.stack([batch[name] for batch in each]) for name in each[0]}


@settings(max_examples=8, deadline=None)
@given(size=st.integers(1, 3), widths=st.lists(st.integers(1, 9), max_size=3))
def test_gradients_losses_and_outputs_are_those_of_vmap(task, size, widths):
    made, batch = population(task, size, (64, *widths, 10)), batches(task, size)
    views = made._views(made.weights)
    own = written.differentiate(made._module.model, views, batch, made.names)
    other = made._vmapped(views, batch, watch=True)
    assert own[0].keys() == other[0].keys()
    for name, gradient in own[0].items():
        torch.testing.assert_close(gradient, other[0][name], rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(own[1], other[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own[2], other[2], rtol=1e-4, atol=1e-5)


def test_a_population_of_perceptrons_uses_it(task):
    assert population(task, 1)._written_out is written


def test_metrics_are_those_of_each_network_alone(task):
    check_metrics_of_each(population(task, 3), task)


def test_a_network_whose_weights_are_nan_has_a_nan_loss_and_spoils_no_other(task):
    made, batch = population(task, 2), batches(task, 2)

    def losses():
        return written.differentiate(made._module.model, made._views(made.weights), batch, ())[1]

    clean = losses()
    made.weights[0] = torch.nan
    found = losses()
    assert bool(torch.isnan(found[0])) and float(found[1]) == float(clean[1])


def test_other_models_and_tasks_are_left_to_vmap(task):
    assert written.fits(network(), task)
    assert not written.fits(Mlp((64, 10)), task)
    assert not written.fits(network().double(), task)
    assert not written.fits(ImageClassifier(nn.Sequential(Mlp((64, 10)))), task)
    texts = {"vocabulary_size": 262, "tokens": 6, "evaluation_windows": 32}
    assert not written.fits(network(), make_task("mlm", texts).prepare())
