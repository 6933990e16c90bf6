"""Predictors that train nothing: every task has one, and a task's network can beat it."""

import numpy as np
import pytest

from sparse_train.tasks import make_task

SMALL = {
    "mlm": {"vocabulary_size": 300, "tokens": 16, "evaluation_windows": 16},
    "images": {},
    "text_classification": {"tokens": 16},
    "extreme": {"data": "planted", "outputs": 200, "inputs": 150, "examples": 400},
    "recommendation": {},
    "control": {"evaluation_episodes": 4},
    "continual": {},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_task_has_a_trivial_predictor_with_its_metric_on_each_split(name):
    task = make_task(name, SMALL[name]).prepare()
    for split in ("validation", "test"):
        rules = task.trivial(split)
        assert rules
        for metrics in rules.values():
            assert np.isfinite(metrics[task.metric])
        assert task.trivial(split) == rules


def test_the_unigram_predictor_is_no_worse_than_guessing_evenly():
    task = make_task("mlm", SMALL["mlm"]).prepare()
    found = task.trivial("validation")["unigram"]
    assert found["loss"] < np.log(task.tokenized.vocabulary_size)


def test_popular_items_beat_items_in_order_of_their_number():
    task = make_task("recommendation", {}).prepare()
    popular = task.trivial()["most taken items"]["ndcg@20"]
    numbers = -np.arange(task.n_items, dtype=np.float32)
    assert popular > task._ranked(lambda users: np.tile(numbers, (len(users), 1)), "validation")[1]
