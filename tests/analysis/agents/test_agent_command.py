"""`nettime agent`: trains, judges, compares; bad input is one line and exit code 2."""

import json
import math
import re

import pytest

from analysis.agents.study import payback
from analysis.cli import run

SMALL = [
    "--env", "whitebox", "--slots", "8", "--set", "iterations=2", "--set", "steps=6",
    "--set", "epochs=1",
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


def test_train_then_eval(tmp_path, capsys):
    assert run(["agent", "train", *SMALL, "--out", str(tmp_path)]) == 0
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == 3
    capsys.readouterr()
    command = ["agent", "eval", str(tmp_path / "agent.pt"), "--episodes", "4", "--json"]
    assert run([*command, "--plot", str(tmp_path / "s.svg")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["speed_ups"]) == 4 and all(s > 0 for s in found["speed_ups"])
    assert 10 <= len(found["least_density"]) <= 14
    assert all(a <= b for a, b in zip(found["least_density"], found["most_density"], strict=True))
    assert (tmp_path / "s.svg").stat().st_size > 0
    assert run([*command, "--plot", str(tmp_path / "s.txt")]) == 2
    shown = capsys.readouterr()
    assert "--plot" in shown.err and ".svg, .png or .pdf" in shown.err and not shown.out


def test_compare_writes_a_page_with_figures_and_leaves_out_what_cannot_run(tmp_path, capsys):
    page = tmp_path / "page.md"
    opponents = ["--opponent", "dense", "--opponent", "best_constant", "--opponent", "rigl"]
    assert run(
        ["agent", "compare", *SMALL, "--seeds", "1", "--no-blind", *opponents, "--episodes", "4",
         "--out", str(tmp_path / "runs"), "--write", str(page), "--json"]
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]["white box"]
    assert {row["name"] for row in rows} == {"agent", "dense", "best_constant"}
    assert [one["device"] for one in found["conclusions"]] == ["white box"]
    assert list(found["left_out"]) == ["rigl"]
    text = page.read_text(encoding="utf-8")
    assert "best constant" in text and "page_schedules.svg" in text
    assert len(list(tmp_path.glob("page_*.svg"))) == 3


def test_on_real_networks_everybody_has_a_rate_of_its_own(tmp_path, capsys):
    command = [
        "agent", "compare", "--env", "training", "--task", "images", "--network", "mlp-1x8", "-d",
        "wafer", "--action", "density", "--slots", "6", "--set", "iterations=1", "--set",
        "steps=6", "--set", "epochs=1", "--seeds", "1", "--no-blind", "--opponent",
        "best_constant", "--test-network", "mlp-1x16", "--episodes", "1", "--test-seed", "64",
        "--tune-episodes", "48", "--density", "0.25", "--out", str(tmp_path),
    ]  # fmt: skip
    assert run([*command, "--write", str(tmp_path / "page.md"), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]["wafer"]}
    assert set(rows) == {
        "agent", "agent, own rate", "agent, adapted", "dense", "narrower 25 %", "best_constant",
    }  # fmt: skip
    assert all(len(row["rates"]) == 1 and row["rates"][0] > 0 for row in rows.values())
    assert rows["agent"]["rates"] == rows["dense"]["rates"]
    assert rows["best_constant"]["episodes"] >= 48
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.splitlines()[2].startswith("On wafer agent reaches dense's loss")


def test_compare_takes_agents_that_name_densities_and_says_so(tmp_path, capsys):
    page = tmp_path / "page.md"
    assert run(
        ["agent", "compare", *SMALL, "--action", "density", "--seeds", "1", "--no-blind",
         "--opponent", "linear", "--episodes", "4", "--out", str(tmp_path / "runs"),
         "--write", str(page)]
    ) == 0  # fmt: skip
    assert "name the density of each layer" in page.read_text(encoding="utf-8")
    command = ["agent", "eval", str(tmp_path / "runs" / "agent-0" / "agent.pt"), "--json"]
    capsys.readouterr()
    assert run([*command, "--episodes", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(1 / 32 <= low <= 1 for low in found["least_density"])


def test_agents_of_another_form_in_the_same_folder_are_refused(tmp_path, capsys):
    assert run(["agent", "train", *SMALL, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert run(["agent", "train", *SMALL, "--action", "density", "--out", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "mode of the agent there is 'step'" in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "x", "--env", "white"], "unknown kind of environment"),
        (["train", "--out", "x", "--algorithm", "pppo", "--env", "whitebox"], "did you mean"),
        (["train", "--out", "x", "--task", "chess"], "chess"),
        (["train", "--out", "x", "-d", "nosuchdevice"], "nosuchdevice"),
        (["train", "--out", "x", "--reward", "fun"], "unknown reward"),
        (["train", "--out", "x", "--min-density", "1.5"], "min_density"),
        (["train", "--out", "x", "--set", "iterations"], "name=value"),
        (["train", "--out", "x", "--action", "jump"], "unknown action mode 'jump'"),
        (["train", "--out", "x", "--action", "density", "--algorithm", "dqn"], "dqn is step"),
        (["train", "--out", "x", "--action", "density", "--set", "start=0.01"], "start: value"),
        (["eval", "none.pt"], "no such file"),
        (["compare", "--opponent", "luck", "--env", "whitebox"], "unknown opponent"),
        (["compare", "--seeds", "0", "--env", "whitebox"], "seeds"),
        (["compare", "--test-seed", "3"], "overlap"),
        (["compare", "--episodes", "0"], "--episodes"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["agent", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_learning_that_makes_nothing_faster_never_pays():
    assert payback(10.0, 2.0) == 20.0
    assert math.isinf(payback(10.0, 1.0)) and math.isinf(payback(10.0, 0.5))


def test_training_says_how_fast_it_learns(tmp_path, capsys):
    assert run(["agent", "train", *SMALL, "--out", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"\d+ episodes, [\d.]+ a second of processor, \d+% of it in the env", text)
    assert run(["agent", "train", *SMALL, "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["episodes"] >= 16  # Two batches of eight were begun.
    assert found["episodes_a_processor_second"] == pytest.approx(
        found["episodes"] / found["processor_s"]
    )
    assert 0 < found["share_in_environment"] <= 1


def test_the_unseen_network_is_judged_while_it_learns_and_learning_is_not_touched(tmp_path, capsys):
    def learnt(folder, *more):
        assert run(["agent", "train", *SMALL, "--out", str(folder), "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    plain = learnt(tmp_path / "plain")
    watched = learnt(tmp_path / "watched", "--judge-every", "1", "--episodes", "4")
    assert watched["curve"] == plain["curve"] and plain["judged"] == []
    assert [row["iteration"] for row in watched["judged"]] == ["1", "2"]
    assert all(float(row["speed_up"]) > 0 for row in watched["judged"])
    command = ["agent", "eval", str(tmp_path / "watched/agent.pt"), "--episodes", "4", "--json"]
    assert run(command) == 0
    frozen = json.loads(capsys.readouterr().out)["speed_ups"]
    assert float(watched["judged"][-1]["speed_up"]) == pytest.approx(
        math.prod(frozen) ** (1 / len(frozen))
    )
