"""A frozen agent as the schedule of a full training run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hwsim import InputError
from rl.agents import checkpoint
from rl.agents.guide import Guide, Guided
from rl.agents.learn import acting
from rl.algorithms import make_agent
from rl.worlds import World
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task
from sparse_train.trainer import train

BASE = {
    "task": "images", "steps": 40, "batch_size": 32, "eval_interval": 10, "warmup_steps": 2,
    "threads": 1,
}  # fmt: skip
SPARSE = {
    **BASE, "algorithm": "magnitude_random", "density": 0.25, "update_interval": 5,
    "distribution": "uniform",
}  # fmt: skip


def saved_agent(path, seed: int = 0, min_density: float = 1 / 32, mode: str = "step", **rules):
    world = World(problems=(("mlp-1x8", "images"),), min_density=min_density, mode=mode, **rules)
    env = cast(Any, SimpleNamespace(state_dict=dict))
    agent = make_agent("ppo", hidden=8, seed=seed, **acting(world))
    checkpoint.save(path, agent, world, env, [], 0.0)
    return path


@pytest.fixture(scope="module")
def task():
    return make_task("images", {}).prepare()


@pytest.fixture(scope="module")
def dense(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    train(TrainConfig.from_json(BASE), folder, task=task)
    return folder


@pytest.fixture(scope="module")
def guide(dense, tmp_path_factory):
    return Guide(saved_agent(tmp_path_factory.mktemp("agent") / "agent.pt"), dense, "wafer")


def test_an_agent_that_names_densities_guides_a_run(task, dense, tmp_path):
    path = saved_agent(tmp_path / "agent.pt", mode="density")
    guided = Guided(task, Guide(path, dense, "wafer"))
    versions = train(TrainConfig.from_json(SPARSE), tmp_path / "run", task=guided).densities
    second = versions.filter(versions["version"] == 1)["density"]
    # An untrained policy names a quarter; a run of steps would be at a half at the least.
    assert min(second) > 0.2 and max(second) < 0.3


@pytest.fixture(scope="module")
def record(task, guide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guided")
    return train(TrainConfig.from_json(SPARSE), folder, task=Guided(task, guide))


def test_a_run_starts_dense_and_no_layer_ends_above_the_target(record):
    versions = record.densities
    first = versions.filter(versions["version"] == 0)
    last = versions.filter(versions["version"] == versions["version"].max())
    assert set(first["density"]) == {1.0}
    assert max(last["density"]) <= 0.25
    assert min(versions["density"]) >= 1 / 32


def test_a_layer_that_is_kept_keeps_its_number_of_weights(task, guide):
    slot = _slot(task, guide)
    before = slot.nnz.clone()
    slot.follow(before * 0 + 1, "step")
    assert list(slot.asked(0.0).values()) == [1.0, 1.0]
    slot.follow(before * 0, "step")
    assert list(slot.asked(0.0).values()) == [0.5, 0.5]


def _slot(task, guide):
    import torch

    guided = Guided(task, guide)
    config = TrainConfig.from_json(SPARSE)
    model = guided.build_for(config)
    guided.make_sparsifier(config, model, torch.optim.AdamW(model.parameters()))
    assert guided._slot is not None
    return guided._slot


def test_a_resumed_run_is_the_uninterrupted_one(task, guide, record, tmp_path):
    config = TrainConfig.from_json(SPARSE)
    train(config, tmp_path, task=Guided(task, guide), stop_after=17)
    resumed = train(config, tmp_path, task=Guided(task, guide))
    assert resumed.training["loss"].equals(record.training["loss"])
    assert resumed.densities.equals(record.densities)
    assert resumed.evaluations.equals(record.evaluations)


def test_an_agent_sees_validation_data_alone(task, guide, tmp_path):
    guided = Guided(task, guide)
    asked: list[str] = []
    inner = task.evaluate

    def evaluate(model, split="validation"):
        asked.append(split)
        return inner(model, split)

    guided.task = cast(Any, _Wrapped(task, evaluate))
    config = TrainConfig.from_json({**SPARSE, "test": True})
    train(config, tmp_path, task=guided)
    assert asked.count("test") == 1
    assert asked[-1] == "test"


class _Wrapped:
    def __init__(self, task, evaluate) -> None:
        self._task, self.evaluate = task, evaluate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


def test_another_agent_is_another_run(task, guide, record, tmp_path):
    other = Guide(saved_agent(tmp_path / "agent.pt", seed=1), guide.reference, "wafer")
    assert Guided(task, other).digest != Guided(task, guide).digest
    with pytest.raises(InputError, match="begun on data with digest"):
        train(
            TrainConfig.from_json({**SPARSE}), record.folder, task=Guided(task, other)
        )  # fmt: skip


def test_the_reference_must_be_the_dense_run_beside(task, guide, record, tmp_path):
    with pytest.raises(InputError, match="its seed is 0; allowed is 1"):
        train(TrainConfig.from_json({**SPARSE, "seed": 1}), tmp_path, task=Guided(task, guide))
    wrong = Guide(guide.agent, record.folder, "wafer")
    with pytest.raises(InputError, match="its algorithm is 'magnitude_random'"):
        train(TrainConfig.from_json(SPARSE), tmp_path / "b", task=Guided(task, wrong))


def test_a_dense_run_needs_no_agent(task, guide, tmp_path):
    with pytest.raises(InputError, match="allowed with an agent is one that drops and grows"):
        train(TrainConfig.from_json(BASE), tmp_path, task=Guided(task, guide))


def test_an_agent_that_names_densities_is_cut_to_its_ends(task, dense, tmp_path):
    import torch

    path = saved_agent(tmp_path / "agent.pt", min_density=0.1, mode="density")
    slot = _slot(task, Guide(path, dense, "wafer"))
    slot.follow(torch.tensor([[0.001, 0.7]]), "density")
    low, high = slot.asked(0.0).values()
    assert low == pytest.approx(0.1, rel=0.01)
    assert high == pytest.approx(0.7, rel=0.01)


def test_a_frozen_agent_holds_still_as_its_world_says(task, dense, tmp_path):
    import torch

    path = saved_agent(tmp_path / "agent.pt", mode="density", hold=0.25)
    slot = _slot(task, Guide(path, dense, "wafer"))
    slot.follow(torch.tensor([[0.9, 0.5]]), "density")
    assert list(slot.asked(0.0).values()) == pytest.approx([1.0, 0.5], rel=0.01)


@pytest.mark.parametrize(("price", "share"), [(0.0, 0.25), (1e6, 1.0)])
def test_a_frozen_agent_leaves_moves_that_cannot_pay(price, share, task, dense, tmp_path):
    import torch

    path = saved_agent(tmp_path / "agent.pt", mode="density", moves="pays")
    slot = _slot(task, Guide(path, dense, "ideal"))
    slot.priced.update_s.fill_(price)
    slot.follow(torch.full((1, 2), 0.25), "density")
    assert min(slot.asked(0.0).values()) == pytest.approx(share, rel=0.01)
