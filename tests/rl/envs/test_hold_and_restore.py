"""What keeps an agent's wobble from costing weights: moves that are held, values that come back."""

import pytest
import torch
from tensordict import TensorDict

from hwsim import InputError
from rl.envs.slots import Topology
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.evaluate import constant, play
from rl.runs.prices import prices
from rl.runs.problems import Problem, at_rate, narrower

pytestmark = pytest.mark.usefixtures("one_thread")


def environment(**changes):
    config = TrainingConfig(
        **{"problems": (("mlp-1x8", "images"),), "devices": ("ideal",), "seeds": (0, 8),
           "mode": "density", **changes}
    )  # fmt: skip
    return SparseTrainingEnv(config, 2)


def stepped(env, density):
    action = torch.full((*env.batch_size, env.width), density)
    return env.step(TensorDict({"action": action}, env.batch_size))["next"]


def test_a_move_within_the_hold_is_not_made_and_one_beyond_is():
    env = environment(hold=0.25)
    env.reset()
    stepped(env, 0.5)
    before = env.nnz.clone()
    stepped(env, 0.42)
    assert torch.equal(env.nnz, before)
    stepped(env, 0.39)
    assert bool((env.nnz < before)[env.live].all())


def test_dense_is_always_carried_out():
    env = environment(hold=0.9)
    env.reset()
    stepped(env, 0.2)
    stepped(env, 1.0)
    assert torch.equal(env.nnz, env.sizes)


def test_weights_that_come_back_have_the_value_at_which_they_were_dropped():
    networks = Problem("mlp-1x8", "images").networks(2)
    rows = torch.arange(2)
    networks.begin(rows, (0, 1))
    networks.train(rows, 3)
    full = networks.sizes.expand(2, -1)
    before = networks.population.weights.clone()
    for restore in (True, False):
        networks.population.weights.copy_(before)
        for nnz in (full // 4, full):
            networks.update(
                rows, nnz, drop_fraction=0.0, drop="magnitude", grow="gradient", restore=restore
            )
        assert torch.equal(networks.population.weights, before) == restore


def test_restored_values_are_part_of_what_a_network_is():
    networks, other = (Problem("mlp-1x8", "images").networks(1) for _ in range(2))
    row = torch.arange(1)
    networks.begin(row, (0,))
    networks.train(row, 2)
    before = networks.population.weights.clone()
    ways = {"drop_fraction": 0.0, "drop": "magnitude", "grow": "gradient", "restore": True}
    networks.update(row, networks.sizes[None] // 4, **ways)
    other.put(0, 0, networks.take(0))
    other.update(row, networks.sizes[None], **ways)
    assert torch.equal(other.population.weights, before)


def test_networks_trained_one_by_one_cannot_restore():
    env = SparseTrainingEnv(
        TrainingConfig(problems=(("multi_head-1x8", "continual"),), devices=("ideal",),
                       mode="density", topology=Topology(restore=True)), 1
    )  # fmt: skip
    env.reset()
    with pytest.raises(InputError, match="one by one"):
        stepped(env, 0.5)


def test_a_run_that_misses_its_target_is_charged_a_whole_dense_run_on_top():
    env = environment(min_density=1 / 64, targets=(0.9, 0.9), budget=1.0)
    found = play(env, constant(1 / 64))
    spent = env.state["spent_s"] / env.state["dense_s"]
    assert not bool(found.reached.any())
    assert found.time.double() == pytest.approx(spent + 1.0)


def test_a_reference_of_its_own_sets_target_and_time():
    env = environment(problems=((at_rate("mlp-1x8", 2.0), "images"),), reference=4.0)
    env.reset()
    contexts = env.contexts or []
    assert {c.reference for c in contexts} == {"mlp-1x8@4"}
    assert {c.network for c in contexts} == {"mlp-1x8@2"}


def test_small_cnns_are_a_population_with_prices_and_narrower_models():
    problem = Problem("simple_cnn-4x4", "images")
    assert len(problem.networks(1).names) == 4
    assert narrower("simple_cnn-4x8", "images", 0.25) == "simple_cnn-4x4"
    table = prices(problem, "wafer", dense_gradient=True)
    assert float(table.layer_s[:, 0].sum()) < float(table.layer_s[:, -1].sum())
    env = environment(problems=(("simple_cnn-4x2", "images"),))
    seen = env.reset()
    assert env.width == 4 and torch.isfinite(seen["layers"]).all()
    stepped(env, 0.5)
    assert torch.isfinite(env.state["loss"]).all()
    with pytest.raises(InputError, match="simple_cnn-4xWIDTH"):
        Problem("simple_cnn-3x4", "images")
