"""A comparison whose runs are spread by Ray is the same comparison."""

import importlib.util
import sys

import pytest

from analysis.comparing.on_ray import run_all_on_ray
from analysis.comparing.plan import ComparisonPlan
from analysis.comparing.race import compare
from analysis.comparing.variants import Variant
from hwsim import InputError
from sparse_train.runs.config import TrainConfig

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: nettime[ray]"
)
PLAN = ComparisonPlan(
    TrainConfig(task="images", steps=8, batch_size=16), (Variant("set"),), densities=(0.5,),
    seeds=(0, 1), rates=(4e-3,), narrower=False, update_interval=2, evaluations=2,
)  # fmt: skip


@needs_ray
@pytest.mark.slow
def test_a_local_ray_gives_what_local_processes_give(tmp_path):
    told = []
    found = [
        compare(
            PLAN, tmp_path / on, devices=("ideal",), processes=2, on=on,
            progress=lambda what, done, total, note: told.append((done, total)),
        )
        for on in ("local", "ray")
    ]  # fmt: skip
    mine, theirs = ([row.runs for row in table.rows] for table in found)
    for one, other in zip(mine, theirs, strict=True):
        for seed in PLAN.seeds:
            assert one[seed].test == other[seed].test
            assert one[seed].courses == other[seed].courses
            assert one[seed].seconds == other[seed].seconds
    assert told[-1][0] == told[-1][1]


@needs_ray
def test_bad_input_of_a_job_is_that_of_the_comparison(tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "final").write_text("a file, where a folder is wanted")
    with pytest.raises(InputError):
        compare(PLAN, tmp_path / "ray", devices=("ideal",), processes=1, on="ray")


def test_without_ray_the_error_names_option_and_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--on: ray is not installed.*nettime\[ray\]"):
        run_all_on_ray(print, [1], 1, print)


def test_another_place_is_refused(nettime, tmp_path):
    found = nettime("compare", "--on", "moon", "--out", tmp_path / "runs")
    assert "--on" in found.error and "ray" in found.error
