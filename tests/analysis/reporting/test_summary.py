import io

import pytest
from hand_made import contender, contenders
from rich.console import Console

from analysis.display.console import jsonable
from analysis.reporting import summary
from analysis.reporting.contenders import common_loss, reference


def shown(table) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()


def test_the_table_fits_80_columns_and_cuts_no_number():
    for loss, which in summary.target_losses(contenders()):
        text = shown(summary.table(contenders(), loss, which))
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "…" not in text


def test_who_never_gets_there_is_said_to_never_get_there():
    loss, which = summary.target_losses(contenders())[1]
    text = shown(summary.table(contenders(), loss, which))
    assert text.count("never") == 2 * 4
    assert "unverified" not in text and "wafer*" in text


def test_the_targets_are_the_common_loss_and_then_the_dense_runs_best():
    runs = contenders()
    base = reference(runs)
    assert base is not None
    assert [loss for loss, _ in summary.target_losses(runs)] == [common_loss(runs), base.best_loss]


def test_a_dense_run_that_is_the_worst_gives_one_target():
    runs = [contender("dense", "dense", 1e-3, end=2.0), contender("RigL", "rigl", 1e-4, end=1.0)]
    assert len(summary.target_losses(runs)) == 1


def test_json_agrees_with_itself():
    found = jsonable(summary.as_json(contenders()))
    times = found["targets"][0]["times"]["ideal"]
    for name, time in times.items():
        expected = time["seconds"] / times["dense"]["seconds"]
        assert time["relative_to_dense"] == pytest.approx(expected), name
    assert all(time is None for name, time in found["targets"][1]["times"]["ideal"].items()
               if name != "dense")  # fmt: skip
