"""Studies of agents that are stopped anywhere give the tables of those that were not."""

import dataclasses
import shutil

import pytest

from analysis.agents import dsrl, judge, study
from analysis.agents.schedules import run as run_schedules
from analysis.agents.schedules_study import Learning, ScheduleStudy
from rl.worlds import World
from sparse_train.runs.config import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")

WORLD = World(
    slots=4, problems=(("mlp-1x8", "images"),), devices=("wafer",), seeds=(0, 2), targets=(1.0, 1.0)
)
SETTINGS = {"iterations": 2, "steps": 16, "epochs": 1}


class Stop(Exception):
    """Of whoever stops a study."""


def stopped_at(number: int, at: str):
    """Progress that stops the study when it is told of `at` for the number-th time."""
    told = 0

    def tell(what, *_):
        nonlocal told
        told += what.startswith(at)
        if told == number:
            raise Stop

    return tell


def goes_on(run, tmp_path, stops) -> None:
    """Holds `run(folder, tell)`, stopped again and again, against the uninterrupted one."""
    whole = run(tmp_path / "whole", lambda *_: None)
    parts = tmp_path / "parts"
    for number, at in stops:
        with pytest.raises(Stop):
            run(parts, stopped_at(number, at))
    assert run(parts, lambda *_: None) == whole


@pytest.mark.slow
def test_dsrl(tmp_path):
    world = World(
        slots=4, problems=(("mlp-1x8", "images"),), devices=("wafer",), seeds=(0, 2),
        targets=(1.0, 1.0), budget=1.0, points=0.1, stop_at_target=False, reward="dsrl",
    )  # fmt: skip
    made = dsrl.DsrlStudy(world, ("mlp-1x12",), "ppo", SETTINGS, 1, 1, tune=False)
    stops = ((1, dsrl.AGENT), (1, dsrl.WITHOUT_STATE), (2, "opponents"))
    goes_on(lambda out, tell: dsrl.run(made, out, tell).to_json(), tmp_path, stops)


@pytest.mark.slow
def test_compare(tmp_path):
    judged = World(slots=1, problems=(("mlp-1x12", "images"),), devices=("wafer",), seeds=(64, 66))
    made = study.AgentStudy(
        WORLD, judge.Test(judged, 1), settings=SETTINGS, seeds=1, opponents=("best_constant",),
        blind=False, densities=(0.5,), episodes=24, slots=4,
    )  # fmt: skip

    def found(out, tell):
        table = study.run(made, out, tell).to_json()
        return {name: str(table[name]) for name in ("rows", "speed_ups", "target")}

    goes_on(found, tmp_path, ((1, "learning"), (2, "opponents")))


@pytest.mark.slow
def test_opponents_are_kept_whatever_agents_learnt_in(tmp_path):
    def others(learn):
        judged = World(
            slots=learn.slots, problems=(("mlp-1x12", "images"),), devices=("wafer",),
            seeds=(64, 66),
        )  # fmt: skip
        made = study.AgentStudy(
            learn, judge.Test(judged, 1), settings={**SETTINGS, "iterations": 1}, seeds=1,
            opponents=("best_constant",), blind=False, densities=(0.5,), episodes=8, slots=4,
        )  # fmt: skip
        study.run(made, tmp_path, lambda *_: None)
        found = {path.name for path in (tmp_path / study.JUDGED).iterdir()}
        shutil.rmtree(tmp_path / "agent-0")
        return {name for name in found if name.startswith("agent")}, {
            name for name in found if not name.startswith("agent")
        }

    few, more = others(WORLD), others(dataclasses.replace(WORLD, slots=6, seeds=(2, 4)))
    assert few[1] == more[1]
    assert few[0] < more[0]


@pytest.mark.slow
def test_schedules(tmp_path):
    base = TrainConfig(task="images", steps=16)
    learning = Learning(networks=("mlp-1x8",), episodes=8, slots=4)
    made = ScheduleStudy(
        base, densities=(0.5,), seeds=(0, 1), rates=(4e-3,), update_interval=4, evaluations=2,
        narrower=False, learning=learning,
    )  # fmt: skip

    def found(out, tell):
        cells = run_schedules(made, out, processes=1, progress=tell).to_json()["cells"]
        return [{k: str(v) for k, v in cell.items() if k != "folders"} for cell in cells]

    goes_on(found, tmp_path, ((20, "training"), (1, "training agents")))
