"""Every task gives an agent episodes: masks move, time is priced, the same seed is the same run."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
import torch
from tensordict import TensorDict
from typer.testing import CliRunner

from analysis.cli import app
from hwsim.errors import InputError
from rl.envs.act import KEEP, SPARSIFY
from rl.envs.interface import Context
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.runs.dense import dense_runs
from rl.runs.problems import SETTINGS, Problem, setting
from sparse_train.population.train import AdamW
from sparse_train.registries import TASKS

WORDS = ("mask", "weight", "grow", "drop", "layer", "dense")
# Smaller than what agents learn on, so that a dense run takes a second.
SMALLER = {
    "mlm": {"budget_bytes": 200_000, "evaluation_windows": 8},
    "images": {},
    "text_classification": {"classes": 2, "vocabulary_size": 262, "tokens": 4},
    "translation": {"vocabulary_size": 270, "tokens": 8, "evaluation_pairs": 4},
    "extreme": {"outputs": 30, "inputs": 40, "examples": 1000, "evaluation_examples": 32},
    "recommendation": {},
    "control": {"warm_up": 20, "evaluation_episodes": 2, "capacity": 200, "explore_steps": 50},
    "continual": {"tasks": 2, "steps_per_task": 12},
}
ONE_BY_ONE = tuple(name for name in SMALLER if SETTINGS[name].trained == "one_by_one")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Parallel text; gettext catalogues are not on every machine."""
    lines = [f"{a} {b} {c}\t{c} {a} {b}" for a in WORDS for b in WORDS for c in WORDS]
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return {"translation": {"text": str(path)}}


@pytest.fixture
def small(pairs, monkeypatch):
    """task → (network, name) of a problem whose dense run has four rounds of six steps."""

    def of(task, family=0):
        name = f"small {task}"
        options = {**SETTINGS[task].options, **SMALLER[task], **pairs.get(task, {})}
        given = dataclasses.replace(
            SETTINGS[task], options=options, batch_size=8, dense_steps=24, round_steps=6,
            optimizer=AdamW(lr=0.02, warmup=2),
        )  # fmt: skip
        monkeypatch.setitem(SETTINGS, name, given)
        return f"{given.families[family]}-1x8", name

    return of


def environment(problem, **changes):
    given = {"problems": (problem,), "devices": ("ideal",), "targets": (1.0, 1.0), **changes}
    return SparseTrainingEnv(TrainingConfig(**given), 1)


def learning_seed(problem):
    """A seed with which the dense run has learnt something; four rounds of control may not."""
    runs = dense_runs(Problem(*problem))
    return next(s for s in range(20) if runs.get(s).rounds_at(runs.get(s).target_loss(1.0)) > 0)


def begin(env):
    problem = env.config.problems[0]
    return env.reset(contexts=[Context(*problem, "ideal", 1.0, learning_seed(problem))])


def act(env, action):
    return env.step(TensorDict({"action": torch.full((1, env.width), action)}, [1]))["next"]


def test_every_task_gives_episodes():
    assert {*SETTINGS} - {"tiny"} == {*SMALLER} == set(TASKS.names())


@pytest.mark.parametrize("task", sorted(SMALLER))
def test_an_agent_acts_on_a_task_and_what_it_masks_never_costs_more(task, small):
    env = environment(small(task))
    seen = begin(env)
    assert bool((seen["density"][seen["live"]] == 1).all())
    step = act(env, SPARSIFY)
    live = step["live"]
    assert bool((step["density"][live] < 0.6).all())
    assert bool(torch.isfinite(step["reward"]).all())
    assert all(torch.isfinite(step[name]).all() for name in ("layers", "whole"))
    table = env.priced
    half = (table.fixed_s + table.layer_seconds(step["density"]).sum(1)) / table.step_s
    # Tables that are looked up cost the same under any mask.
    assert float(half) == 1 if task == "recommendation" else float(half) < 1
    for _ in range(6):
        if not bool(step["done"]):
            step = act(env, SPARSIFY)
            assert bool((step["density"][live] >= env.min_density).all())
    if task in (*ONE_BY_ONE, "images"):  # Texts have many test examples.
        assert all(torch.isfinite(value).all() for value in env.evaluate("test").values())


@pytest.mark.parametrize("task", ONE_BY_ONE)
def test_one_by_one_an_episode_is_its_seeds_and_goes_on_to_the_bit(task, small):
    problem = small(task)
    whole, again = environment(problem), environment(problem)
    begin(whole)
    begin(again)
    found = [act(whole, action)["reward"] for action in (SPARSIFY, KEEP, KEEP)]
    act(again, SPARSIFY)
    saved = io.BytesIO()
    torch.save(again.state_dict(), saved)
    saved.seek(0)
    other = environment(problem)
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(torch.cat([act(other, KEEP)["reward"] for _ in range(2)]),
                       torch.cat(found[1:]))  # fmt: skip
    for name, value in whole.state.items():
        assert torch.equal(value.nan_to_num(), other.state[name].nan_to_num()), name


def test_vectors_that_are_propagated_can_be_masked_too(small):
    env = environment(small("recommendation", 1))
    begin(env)
    step = act(env, SPARSIFY)
    assert step["density"].tolist() == [[0.5, 0.5]]
    assert float(env.priced.layer_seconds(step["density"]).sum()) == pytest.approx(
        float(env.priced.layer_seconds(torch.ones(1, 2)).sum())
    )


def test_an_agents_acts_are_its_own(small):
    """Of two runs of one seed, the one under other masks sees other things."""
    networks = Problem(*small("control")).networks(2)
    rows = torch.arange(2)
    networks.begin(rows, [0, 0])
    nnz = (networks.sizes * 0.1).long()[None]
    networks.update(rows[1:], nnz, drop_fraction=0.0, drop="random", grow="gradient")
    networks.train(rows, 30)
    one, other = (networks.take(row)["run"]["task"]["seen"]["observations"] for row in (0, 1))
    assert torch.equal(one[:20], other[:20])  # The random ones before the first step.
    assert not torch.equal(one[20:], other[20:])


def test_the_way_through_a_stream_is_counted_over_all_its_tasks(small):
    """Where a task begins the mean over those seen leaps up; what is left to learn does not."""
    run = dense_runs(Problem(*small("continual"))).get(0)
    networks = [network["run"]["task"]["task"] for network in run.networks]
    assert networks == [0, 0, 0, 1, 1]
    assert run.losses[0] == pytest.approx(math.log(10), abs=0.2)
    assert run.losses[-1] < run.losses[2] < run.losses[0]


def test_the_command_trains_an_agent_one_by_one(small, tmp_path):
    network, task = small("continual")
    words = (
        "agent", "train", "--task", task, "--network", network, "--slots", "2", "-d", "ideal",
        "--set", "iterations=1", "--set", "steps=2", "--out", str(tmp_path / "agent"), "--json",
    )  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "agent" / "agent.pt").is_file()


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
