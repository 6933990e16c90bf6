"""Real steps of several runs, timed in turn."""

import numpy as np
import pytest

from analysis.comparing.measured import StepSeconds, step_seconds
from hwsim import InputError
from sparse_train.record import TrainingRecord
from sparse_train.runs.config import TrainConfig
from sparse_train.trainer import train


def config(**changes):
    settings = {
        "task": "images", "model_options": {}, "steps": 12, "batch_size": 16, "threads": 1,
        "eval_interval": 4, "warmup_steps": 1,
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    train(config(), out / "dense")
    train(config(algorithm="rigl", density=0.2, update_interval=3), out / "rigl")
    return [out / "dense", out / "rigl"]


def test_runs_take_their_steps_in_turn_and_stay_as_they_were(folders):
    before = [(f / "metrics.parquet").read_bytes() for f in folders]
    ticks = iter(range(1000))
    found = step_seconds(folders, rounds=3, steps=2, clock=lambda: float(next(ticks)))
    # One tick passes between two looks at the clock: half a tick a step, whoever's turn it is.
    assert [one.ordinary for one in found] == [0.5, 0.5]
    assert next(ticks) == 2 * 2 * 3
    assert [(f / "metrics.parquet").read_bytes() for f in folders] == before


def test_an_update_step_counts_with_what_updates_took(folders):
    record = TrainingRecord.load(folders[1])
    up_to = StepSeconds(1.0, 3.0, 0.9, 1.1).up_to(record)
    updates = int(record.training["mask_update"].sum())
    assert updates == 2
    assert up_to[0] == 0 and up_to[-1] == record.steps + 2 * updates
    assert (np.diff(up_to) > 0).all()


def test_a_run_that_is_not_complete_is_one_line(tmp_path):
    train(config(), tmp_path / "half", stop_after=4)
    with pytest.raises(InputError, match="not complete"):
        step_seconds([tmp_path / "half"])
