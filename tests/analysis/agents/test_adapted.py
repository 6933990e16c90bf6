"""Agents that go on learning on what is judged, with a tenth of an opponent's episodes."""

import pytest
import torch

from analysis.agents import judge
from analysis.agents.settle import TuneIn, adapted, tuning_seeds
from rl.agents.checkpoint import load
from rl.agents.learn import CHECKPOINT, train
from rl.algorithms import make_agent
from rl.worlds import World

WORLD = World(
    slots=4, problems=(("mlp-1x8", "images"),), devices=("wafer",), mode="density", seeds=(0, 2)
)
JUDGED = World(
    slots=2, problems=(("mlp-1x12", "images"),), devices=("wafer",), mode="density",
    seeds=(64, 66),
)  # fmt: skip
SETTINGS = {"iterations": 1, "steps": 18, "epochs": 1, "start": 0.5}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return train(tmp_path_factory.mktemp("agent"), WORLD, "ppo", SETTINGS)


def weights(agent) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in agent.loss.parameters()])


def test_it_learns_from_the_saved_weights_and_leaves_them_alone(saved):
    where = TuneIn(judge.Test(JUDGED, 2), "wafer", 0, 1.0, 4)
    before = weights(saved.restore())
    agent, episodes = adapted(saved, where, 1.0, 8)
    assert agent.config.iterations == 2
    assert 8 <= episodes <= 24
    assert not torch.equal(weights(agent), before)
    assert torch.equal(weights(saved.restore()), before)
    again, _ = adapted(saved, where, 1.0, 8)
    assert torch.equal(weights(again), weights(agent))


def test_fewer_episodes_than_a_batch_are_one_batch(saved):
    where = TuneIn(judge.Test(JUDGED, 2), "wafer", 1, 1.0, 4)
    agent, _ = adapted(saved, where, 1.0, 1)
    assert agent.iteration == agent.config.iterations == 1


def test_it_learns_on_the_judged_networks_and_the_seeds_of_tuning():
    where = TuneIn(judge.Test(JUDGED, 2), "wafer", 3, 1.0, 4)
    config = where.world(2.0, "density").config
    assert config.problems == (("mlp-1x12@2", "images"),)
    assert config.seeds == (tuning_seeds(3)[0], tuning_seeds(3)[-1] + 1)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_an_agent_takes_over_networks_and_nothing_else(algorithm, tmp_path):
    world = World(kind="whitebox", slots=4, layers=(2, 3), decisions=4)
    given = {"iterations": 2, "steps": 5, "seed": 1}
    saved = train(tmp_path, world, algorithm, given)
    agent = make_agent(algorithm, **{**given, "iterations": 7, "seed": 5})
    stream = agent.stream.clone()
    agent.take_over(load(tmp_path / CHECKPOINT).agent)
    seen = world.make(3).reset()
    assert torch.equal(agent.act(seen), saved.restore().act(seen))
    assert agent.iteration == 0
    assert torch.equal(agent.stream, stream)
