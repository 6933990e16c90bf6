"""`nettime runs` and `nettime.runs`: every run a row, and the settings in which they differ."""

import json

import pytest

import nettime
from analysis.cli import run
from analysis.reporting import listing, provenance
from hwsim import InputError

SETTINGS = {
    "task": "images", "task_options": {"data": "digits"}, "model": "mlp", "steps": 4,
    "eval_interval": 2, "batch_size": 8, "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, own in (("a", {"algorithm": "dense"}), ("b", {"algorithm": "set", "density": 0.5})):
        nettime.train(nettime.TrainConfig.from_json({**SETTINGS, **own}), root / name)
    (root / "notes").mkdir()
    return root


def test_a_pattern_is_one_frame(folder):
    found = nettime.runs(f"{folder}/*")
    assert found["run"].to_list() == [f"{folder}/a", f"{folder}/b"]
    assert found["steps_done"].to_list() == [4, 4]
    assert found["algorithm"].to_list() == ["dense", "set"]
    assert found["best_loss"][0] <= found["loss"][0]
    assert json.loads(found["task_options"][0]) == {"data": "digits"}
    assert found["data"].n_unique() == 1
    assert listing.runs([folder / "b", f"{folder}/*"])["run"].to_list() == [
        f"{folder}/b", f"{folder}/a"
    ]  # fmt: skip


def test_what_differs_is_named(folder):
    differ = listing.differences(nettime.runs(f"{folder}/*"))
    assert differ.columns[0] == "run"
    assert {"algorithm", "density"} <= set(differ.columns)
    assert "batch_size" not in differ.columns
    alone = listing.differences(nettime.runs(folder / "a"))
    assert alone.columns == ["run"]


def test_the_command_lists_them(folder, capsys):
    assert run(["runs", f"{folder}/*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["algorithm"] for row in found["runs"]] == ["dense", "set"]
    assert "algorithm" in found["differ"]
    assert run(["runs", f"{folder}/*"]) == 0
    assert "they differ in algorithm: dense, set" in capsys.readouterr().out


def test_no_run_is_one_line(folder, capsys):
    with pytest.raises(InputError, match="names no run folder"):
        nettime.runs(f"{folder}/notes")
    assert run(["runs", "nowhere/*"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_report_says_how_it_came_about(folder):
    lines = dict(provenance.lines([folder / "a", folder / "b"], ["A", "B"], ["nettime", "a b"]))
    assert lines["version"] == f"nettime {nettime.__version__}"
    assert lines["command"] == "nettime 'a b'"
    assert lines["differs: algorithm"] == "A: dense; B: set"
    assert lines["data (digest)"]
