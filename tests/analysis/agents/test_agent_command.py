"""`nettime agent`: trains, judges, compares; bad input is one line and exit code 2."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from analysis.agents.judge import AGENT, Contender, Outcome, Played, paired_ratio
from analysis.agents.page import dense_times, verdict
from analysis.agents.study import payback
from analysis.cli import run
from rl.evaluate import Episodes

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


def test_compare_writes_a_page_with_figures_and_leaves_out_what_cannot_run(tmp_path, capsys):
    page = tmp_path / "page.md"
    opponents = ["--opponent", "dense", "--opponent", "best_constant", "--opponent", "rigl"]
    assert run(
        ["agent", "compare", *SMALL, "--seeds", "1", "--no-blind", *opponents, "--episodes", "4",
         "--out", str(tmp_path / "runs"), "--write", str(page), "--json"]
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in found["rows"]} == {"agent", "dense", "best_constant"}
    assert list(found["left_out"]) == ["rigl"]
    text = page.read_text(encoding="utf-8")
    assert "best constant" in text and "page_schedules.svg" in text
    assert len(list(tmp_path.glob("page_*.svg"))) == 3


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


def contender(name, *speeds):
    runs = []
    for own in speeds:
        time = 1 / torch.tensor(own, dtype=torch.float32)
        n = len(own)
        paths = torch.stack([torch.zeros(n), torch.ones(n)])
        live = torch.ones(n, 1, dtype=torch.bool)
        found = Episodes(
            time, -time.log(), torch.ones(n).long(), torch.ones(1, n, 1), paths * time, paths, live
        )
        runs.append(Played(found, ("",) * n, 0.0))
    return Contender(name, tuple(runs))


def test_a_contender_twice_as_fast_in_every_episode_has_a_ratio_of_two():
    slow = [1.0, 1.5, 0.8, 1.2]
    a = contender(AGENT, [2 * s for s in slow], [2 * s for s in slow])
    found = paired_ratio(a, contender("linear", slow))
    assert (found.point, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_goal_is_met_only_with_the_lower_bound_above_one():
    rng = np.random.default_rng(0)
    noise = rng.normal(1.0, 0.2, 8).tolist()
    won = Outcome((contender(AGENT, [2.0] * 8), contender("linear", [1.0] * 8)))
    open_ = Outcome((contender(AGENT, noise), contender("linear", noise[::-1])))
    assert verdict(won.rows).startswith("The agent is faster")
    assert "not shown" in verdict(open_.rows)


def test_the_page_says_what_dense_runs_take_by_network_and_device():
    run = contender(AGENT, [1.0, 2.0]).runs[0]
    timed = dataclasses.replace(run, groups=("a on wafer",) * 2, dense_s=(2e-3, 3e-3))
    assert dense_times(Outcome((Contender(AGENT, (timed,)),))) == [
        "Net time of the dense runs to the target, by seed: a on wafer 2.00 ms to 3.00 ms."
    ]
    assert dense_times(Outcome((Contender(AGENT, (run,)),))) == []


def test_learning_that_makes_nothing_faster_never_pays():
    assert payback(10.0, 2.0) == 20.0
    assert math.isinf(payback(10.0, 1.0)) and math.isinf(payback(10.0, 0.5))
