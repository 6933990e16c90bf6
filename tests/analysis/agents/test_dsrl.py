"""`nettime agent dsrl` with tiny settings: its table, its reward, what it refuses."""

import json
import re

import pytest
import torch

from analysis import results
from analysis.agents.dsrl import kept
from analysis.agents.dsrl_table import AGENT, DENSE, WITHOUT_STATE, DsrlPage, DsrlTable, Runs
from analysis.cli import run
from hwsim import InputError
from rl.envs.act import step_density, toward
from rl.moment import Moment
from rl.rewards import make_reward

TINY = [
    "--seeds=1", "--episodes=1", "--slots=2", "--set=iterations=1", "--set=steps=24",
    "--set=activation=relu", "--network=text_classifier-1x8",
    "--test-network=text_classifier-1x8", "-d", "ideal", "--json",
]  # fmt: skip


@pytest.mark.slow
def test_the_table_has_all_contenders_relative_to_dense(tmp_path, capsys):
    argv = ["agent", "dsrl", "--out", str(tmp_path), "--write", str(tmp_path / "a.md"), *TINY]
    assert run(argv) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows)[:3] == ["DSRL agent", "agent without state", "dense"]
    assert list(rows)[3:] == [
        "narrower dense", "static, uniform", "static, ERK", "GMP", "dynamic, SET", "dynamic, RigL",
    ]  # fmt: skip
    assert found["metric"] == "accuracy"
    for name in ("flops", "peak_bytes", "mean_bytes"):
        assert rows["dense"][name][0] == 1.0
    assert rows["static, uniform"]["flops"][0] < 1.0
    assert rows["GMP"]["peak_bytes"][0] > rows["static, uniform"]["peak_bytes"][0]
    assert rows["narrower dense"]["density"] == [1.0, 0.0]
    assert rows["narrower dense"]["peak_bytes"][0] < 1.0
    assert rows["dense"]["rate"] == rows["DSRL agent"]["rate"] > 1  # The task's own is too small.
    assert rows["static, uniform"]["peak_bytes"] == rows["static, uniform"]["mean_bytes"]
    assert rows["dynamic, RigL"]["peak_bytes"][0] > rows["dynamic, SET"]["peak_bytes"][0]
    assert "| dense | " in (tmp_path / "a.md").read_text()
    assert results.disagreements(tmp_path) == ([], [])
    assert run(argv) == 0  # It goes on: nothing is learnt again.
    assert json.loads(capsys.readouterr().out)["rows"] == found["rows"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--task", "mlm"], "unknown task 'mlm'.*text_classification, translation"),
        (["--set", "beta=x"], "beta: value is 'x'; allowed is a finite number"),
        (["--set", "points=2"], "points: value is 2; allowed is 0 or more, below 1"),
        (["--set", "gamma=2"], "unknown setting of ppo 'gamma'"),
        (["--set", "activation=gelu"], "unknown activation 'gelu'.*tanh, relu"),
        (["--network", "bert-1x8"], "network: value is 'bert-1x8'"),
    ],
)
def test_bad_input_is_one_line(given, named, capsys):
    assert run(["agent", "dsrl", *given]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert re.search(named, text), text


def moment(**numbers):
    given = dict.fromkeys(Moment.__dataclass_fields__, 0.0) | numbers
    return Moment(**{name: torch.tensor([float(v)]) for name, v in given.items()})


def test_weights_of_the_reward_are_settable():
    before = moment(dense_flops=10, spent_flops=2, accuracy=0.25)
    after = moment(dense_flops=10, spent_flops=3, accuracy=0.5, step_density=0.4)
    assert make_reward("dsrl(alpha=2,beta=3)")(before, after).item() == pytest.approx(0.2)
    assert make_reward("dsrl")(before, after).item() == pytest.approx(0.15)
    # As printed: the REDUCTION is subtracted.
    literal = make_reward("dsrl_literal(beta=0.5)")(before, after).item()
    assert literal == pytest.approx(0.25 - 0.5 * 0.6)


def test_a_move_of_points_takes_or_adds_them():
    density = torch.tensor([0.5, 0.5, 0.5, 0.95, 0.1])
    action = torch.tensor([0, 1, 2, 2, 0])
    moved = step_density(density, action, 0.5, 0.05, points=0.1)
    assert moved.tolist() == pytest.approx([0.4, 0.5, 0.6, 1.0, 0.05])
    wanted = torch.tensor([0.3, 0.52, 0.9, 0.97, 0.1])
    assert toward(density, wanted, 0.5, points=0.1).tolist() == [0, 1, 2, 1, 1]


def runs(score: list[float], *, flops: float = 0.5, rate: float = 4.0) -> Runs:
    many = [flops] * len(score)
    return Runs("accuracy", score, many, {"ideal": many}, many, many, many, rate)


def made(agent: list[list[float]], seeds: int) -> DsrlTable:
    about = {
        "task": "text_classification", "learnt_on": ["text_classifier-1x8"],
        "judged_on": ["text_classifier-2x8"], "agents": len(agent), "algorithm": "ppo",
        "episodes_learnt": 64, "episodes": seeds, "reward": "dsrl", "points": 0.1, "tuned": True,
        "dense_rate": 4.0, "steps": 240,
    }  # fmt: skip
    plain = [0.5 + 0.01 * i for i in range(seeds)]
    played = {
        AGENT: tuple(map(runs, agent)), WITHOUT_STATE: tuple(map(runs, agent)),
        DENSE: (runs(plain, flops=2.0),), "GMP": (runs([p - 0.2 for p in plain]),),
    }  # fmt: skip
    return DsrlTable(played, 0.5, about)


def test_a_row_is_relative_to_dense_of_the_same_seed():
    table = made([[0.6, 0.61, 0.62, 0.63, 0.64], [0.6, 0.61, 0.62, 0.63, 0.64]], 5)
    rows = {row.name: row for row in table.rows}
    assert rows[AGENT].flops == pytest.approx((0.25, 0.0))
    assert rows[AGENT].better.point == pytest.approx(0.1)
    assert rows["GMP"].better.point == pytest.approx(-0.2)
    assert rows[DENSE].better.point == 0
    assert table.verdict(rows[AGENT]) == "better (5 seeds, too few to claim it)"
    assert table.verdict(rows["GMP"]) == "worse (5 seeds, too few to claim it)"


def test_nothing_is_said_of_fewer_than_five_seeds():
    table = made([[0.6, 0.61]], 2)
    assert {table.verdict(row) for row in table.rows if row.name != DENSE} == {
        "too few seeds to say anything"
    }


def test_a_difference_must_show_against_its_scatter():
    table = made([[0.3, 0.71, 0.42, 0.83, 0.34]], 5)
    row = next(row for row in table.rows if row.name == AGENT)
    assert table.verdict(row) == "no difference shown (5 seeds)"


def test_a_page_is_what_its_table_gives(tmp_path):
    page = DsrlPage(made([[0.6] * 5, [0.61] * 5], 5), "DSRL", "nettime agent dsrl")
    (tmp_path / "x.md").write_text(page.page)
    (tmp_path / "x.json").write_text(results.dumps(page))
    assert results.disagreements(tmp_path) == ([], [])
    assert results.load(tmp_path / "x.json").page == page.page


def test_runs_are_read_and_not_made_again(tmp_path):
    key = {"name": "dynamic, SET", "seeds": [1, 2]}
    first = kept(tmp_path, key, lambda: runs([0.1, 0.2 / 3]))
    again = kept(tmp_path, key, lambda: pytest.fail("made again"))
    assert again == first
    kept(tmp_path, {**key, "seeds": [1]}, lambda: runs([0.5]))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_of_runs_is_named(tmp_path):
    key = {"name": "dense"}
    kept(tmp_path, key, lambda: runs([0.1]))
    path = next(tmp_path.iterdir())
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        kept(tmp_path, key, lambda: runs([0.1]))
