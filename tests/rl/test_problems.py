"""Every task either gives an agent episodes, or says in one line why it cannot."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tensordict import TensorDict
from typer.testing import CliRunner

from analysis.cli import app
from hwsim.errors import InputError
from rl.problems import SETTINGS, UNFIT, Problem, setting
from rl.training import SparseTrainingEnv
from rl.training_config import TrainingConfig
from sparse_train.population import AdamW
from sparse_train.tasks import TASKS

WORDS = ("mask", "weight", "grow", "drop", "layer", "dense")
# Smaller than what agents learn on, so that a dense run takes a second.
SMALLER = {
    "mlm": {"budget_bytes": 200_000, "evaluation_windows": 8},
    "images": {},
    "text_classification": {"classes": 2, "vocabulary_size": 262, "tokens": 4},
    "translation": {"vocabulary_size": 270, "tokens": 8, "evaluation_pairs": 4},
    "extreme": {"outputs": 30, "inputs": 40, "examples": 1000, "evaluation_examples": 32},
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Parallel text; gettext catalogues are not on every machine."""
    lines = [f"{a} {b} {c}\t{c} {a} {b}" for a in WORDS for b in WORDS for c in WORDS]
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return {"translation": {"text": str(path)}}


def test_every_task_is_fit_for_agents_or_has_a_reason_why_not():
    assert {*SETTINGS, *UNFIT} - {"tiny"} == set(TASKS.names())
    assert not SETTINGS.keys() & UNFIT.keys()


@pytest.mark.parametrize("task", sorted(SMALLER))
def test_an_agent_acts_on_a_task_and_what_it_masks_costs_less(task, pairs, monkeypatch):
    small = dataclasses.replace(
        SETTINGS[task], options={**SETTINGS[task].options, **SMALLER[task], **pairs.get(task, {})},
        batch_size=8, dense_steps=24, round_steps=6, optimizer=AdamW(lr=0.02, warmup=2),
    )  # fmt: skip
    name = f"small {task}"
    monkeypatch.setitem(SETTINGS, name, small)
    network = small.families[0] + "-1x8"
    config = TrainingConfig(problems=((network, name),), devices=("ideal",), targets=(1.0, 1.0))
    env = SparseTrainingEnv(config, 1)
    seen = env.reset()
    assert bool((seen["density"][seen["live"]] == 1).all())
    less = torch.zeros(1, env.width, dtype=torch.long)
    step = env.step(TensorDict({"action": less}, [1]))["next"]
    live = step["live"]
    assert bool((step["density"][live] < 0.6).all())
    assert bool(torch.isfinite(step["reward"]).all())
    table = env.priced
    half = (table.fixed_s + table.layer_seconds(step["density"]).sum(1)) / table.step_s
    assert float(half) < 1


@pytest.mark.parametrize("task", sorted(UNFIT))
def test_a_task_without_episodes_says_why_and_names_those_that_have(task, tmp_path):
    words = ("agent", "train", "--task", task, "--out", str(tmp_path / "agent"))
    result = CliRunner().invoke(app, words)
    message = str(result.exception)
    assert isinstance(result.exception, InputError)
    assert UNFIT[task] in message and "text_classification" in message
    assert not (tmp_path / "agent").exists()


@pytest.mark.parametrize("task", sorted(SMALLER))
def test_the_networks_of_a_task_are_of_its_families(task):
    given = setting(task)
    for network in (*given.small, *given.unseen):
        Problem(network, task)
    assert not set(given.small) & set(given.unseen)
    with pytest.raises(InputError, match=f"allowed for task {task} is {given.families[0]}-"):
        Problem("cnn-1x8", task)


def test_a_network_of_one_layer_cannot_be_asked_for_two():
    with pytest.raises(InputError, match="extreme-1xWIDTH, for example extreme-1x32"):
        Problem("extreme-2x16", "extreme")


def test_an_unknown_task_lists_those_that_agents_can_schedule():
    with pytest.raises(InputError, match=r"images.*translation"):
        setting("chess")
