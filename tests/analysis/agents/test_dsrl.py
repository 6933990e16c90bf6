"""`nettime agent dsrl` with tiny settings: its table, its reward, what it refuses."""

import json
import re

import pytest
import torch

from analysis.cli import run
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
    assert len(rows) == 7
    assert found["metric"] == "accuracy"
    for name in ("flops", "peak_bytes", "mean_bytes"):
        assert rows["dense"][name][0] == 1.0
    assert rows["static, uniform"]["flops"][0] < 1.0
    assert rows["static, uniform"]["peak_bytes"] == rows["static, uniform"]["mean_bytes"]
    assert rows["dynamic, RigL"]["peak_bytes"][0] > rows["dynamic, SET"]["peak_bytes"][0]
    assert "| dense | " in (tmp_path / "a.md").read_text()
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
