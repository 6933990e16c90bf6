"""Seconds of a run are those of its work, not of Numba's compilation."""

import itertools

import numba
import pytest

from sparse_train.masking.sparsifier import Sparsifier
from sparse_train.runs import clock
from sparse_train.runs.config import TrainConfig
from sparse_train.runs.run import Run
from sparse_train.tasks import make_task


@pytest.fixture
def ticks(monkeypatch):
    """A clock of whole seconds, one later at each look."""
    count = itertools.count()
    monkeypatch.setattr(clock.time, "perf_counter", lambda: float(next(count)))
    monkeypatch.setattr(clock._compiling, "seconds", 0.0)


def fresh():
    """A function that Numba has not seen, of two that call each other."""
    inner = numba.njit(lambda x: x + 1)
    return numba.njit(lambda x: inner(x) + 1)


def test_the_clock_stands_while_functions_compile(ticks):
    function = fresh()
    begun = clock.working_s()
    assert function(1) == 3
    # Looks: begun, compilation begins (1) and ends (2), now (3): a second of three was its.
    assert clock.working_s() - begun == 2.0
    begun = clock.working_s()
    assert function(1) == 3
    assert clock.working_s() - begun == 1.0


def test_a_step_in_which_something_compiles_takes_what_others_take(ticks, monkeypatch):
    config = TrainConfig(
        task="images", model_options={}, steps=6, batch_size=8, threads=1, algorithm="rigl",
        density=0.2, update_interval=2, warmup_steps=1,
    )  # fmt: skip
    run = Run(config, make_task("images", config.task_options).prepare())
    step = Sparsifier.step

    def compiling(self):
        for _ in range(5):
            fresh()(1)
        return step(self)

    for number in range(6):
        if number == 3:
            monkeypatch.setattr(Sparsifier, "step", compiling)
        if number == 4:
            monkeypatch.setattr(Sparsifier, "step", step)
        run.advance()
    took = [b - a for a, b in itertools.pairwise([0.0, *(m["elapsed_s"] for m in run.metrics)])]
    # Of a compilation's two looks at this clock one second is its own; ten would be all of it.
    assert took[3] == took[4] + 5 and took[4] == took[5] == 1.0
