"""Laws of every population, whichever way its gradients are computed."""

from __future__ import annotations

import pytest

from sparse_train.population.train import Population
from sparse_train.tasks import Prepared


def check_metrics_of_each(made: Population, task: Prepared) -> None:
    """Loss and accuracy of each network are those that it has alone."""
    found = made.evaluate(task.evaluation_batches("validation"))
    for row in range(len(found["loss"])):
        alone = task.evaluate(made.network(row))
        assert float(found["loss"][row]) == pytest.approx(alone["loss"], rel=1e-5)
        assert float(found["accuracy"][row]) == pytest.approx(alone["accuracy"])
