"""How often a run updates its masks, by default and where it cannot."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError
from sparse_train.registries import ALGORITHMS
from sparse_train.runs.config import TrainConfig
from sparse_train.runs.run import Run
from sparse_train.schedules import is_update_step
from sparse_train.tasks import make_task

MOVING = [n for n in ALGORITHMS.names() if ALGORITHMS.get(n).update_interval > 1]


def updates(config):
    end = config.end_step or int(0.75 * config.steps)
    return sum(is_update_step(t, config.interval, end) for t in range(1, config.steps + 1))


@settings(deadline=None)
@given(
    steps=st.integers(20, 3000), name=st.sampled_from(MOVING), density=st.sampled_from([0.5, 0.1])
)
def test_by_default_a_run_of_any_length_updates_its_masks_or_is_refused(steps, name, density):
    try:
        config = TrainConfig(algorithm=name, density=density, steps=steps)
    except InputError as error:
        assert "updates" in str(error) and steps < 60
        return
    assert updates(config) >= 10
    assert config.interval <= ALGORITHMS.get(name).update_interval


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update_interval": 100}, "update_interval: value is 100"),
        ({"warmup_steps": 101}, "warmup_steps: value is 101"),
        ({"end_step": 3, "update_interval": 5}, "update_interval"),
        ({"algorithm": "iterative", "update_interval": 20}, "density: value is 0.1"),
        ({"algorithm": "lottery", "update_interval": 10}, "11 updates"),
    ],
)
def test_a_run_in_which_nothing_would_happen_is_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as error:
        TrainConfig(**{"algorithm": "rigl", "density": 0.1, "steps": 100, **changes})
    assert "\n" not in str(error.value) and "allowed is" in str(error.value)


def test_static_and_dense_runs_have_no_calendar_to_be_wrong():
    TrainConfig(algorithm="static", density=0.1, steps=3, update_interval=100)
    assert TrainConfig(steps=3).warmup_steps == 0


@pytest.mark.parametrize("name", ["lottery", "iterative"])
def test_a_layer_that_cannot_come_down_to_its_budget_in_time_is_named(name):
    """Three halvings are enough for an eighth of each layer; ERK asks for less of the widest."""
    config = TrainConfig(
        task="images", algorithm=name, algorithm_options={"share": 0.5}, density=0.125, steps=8,
        end_step=7, update_interval=2, batch_size=4, warmup_steps=1,
    )  # fmt: skip
    task = make_task("images", {}).prepare()
    assert Run(replace(config, distribution="uniform"), task).sparsifier is not None
    with pytest.raises(InputError, match=r"density: layer .* is to end at .* needs 4 updates"):
        Run(replace(config, distribution="erk"), task)
