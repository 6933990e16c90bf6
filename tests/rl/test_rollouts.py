"""Episodes collected by one process, two, or Ray: the same to the bit."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

import pytest
import torch

from hwsim import InputError
from rl.agents import checkpoint, learn
from rl.algorithms import make_agent
from rl.rollouts import BACKENDS, make_rollouts
from rl.worlds import World

WHITE = World(kind="whitebox", slots=8, shards=4, layers=(2, 3), decisions=6)
SETTINGS = {"iterations": 2, "steps": 8, "hidden": 8}
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: nettime[ray]"
)


def trained(folder, world=WHITE, **options):
    return learn.train(folder, world, "ppo", SETTINGS, **options)


def equal(one, other) -> bool:
    """Same policy, optimizer, streams, environments and curve."""
    mine, its = (
        {"agent": saved.agent, "env": saved.env, "curve": saved.curve} for saved in (one, other)
    )
    return _same(mine, its)


def _same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("one"))


def test_two_processes_learn_what_one_does(one, tmp_path):
    assert equal(one, trained(tmp_path, processes=2))


def test_two_processes_explore_densities_as_one_does(tmp_path):
    world = dataclasses.replace(WHITE, mode="density")
    first = trained(tmp_path / "one", world)
    assert equal(first, trained(tmp_path / "two", world, processes=2))


@needs_ray
def test_ray_learns_what_one_process_does(one, tmp_path):
    assert equal(one, trained(tmp_path, rollouts="ray", processes=2))


@pytest.mark.slow
def test_two_processes_collect_the_same_real_training(tmp_path):
    world = World(slots=4, shards=2, problems=(("mlp-1x8", "images"),), seeds=(0, 4))
    first = trained(tmp_path / "one", world)
    assert equal(first, trained(tmp_path / "two", world, processes=2))


@needs_ray
@pytest.mark.slow
def test_ray_collects_the_same_real_training(tmp_path):
    world = World(slots=4, shards=2, problems=(("mlp-1x8", "images"),), seeds=(0, 4))
    first = trained(tmp_path / "one", world)
    assert equal(first, trained(tmp_path / "ray", world, rollouts="ray", processes=2))


def test_one_shard_is_one_environment():
    world = World(kind="whitebox", slots=4, layers=(2, 3), decisions=6)
    agents = [make_agent("ppo", **SETTINGS) for _ in range(2)]
    rollouts = make_rollouts("local", world, 0)
    env = world.make(0)
    agents[0].train(env)
    agents[1].train(rollouts)
    assert _same(agents[0].state_dict(), agents[1].state_dict())
    assert _same(env.state_dict(), rollouts.state_dict())


@pytest.mark.slow
def test_a_resumed_run_with_other_processes_is_the_uninterrupted_one(one, tmp_path):
    agent = make_agent("ppo", **SETTINGS)
    rollouts = make_rollouts("local", WHITE, 0, 2)
    rows: list = []
    try:
        agent.train(rollouts, report=rows.append, stop_after=1)
        checkpoint.save(tmp_path / learn.CHECKPOINT, agent, WHITE, rollouts, rows, 0.0)
        assert rollouts.elsewhere_s > 0
    finally:
        rollouts.close()
    assert equal(one, trained(tmp_path))


def test_shards_have_streams_of_their_own():
    rollouts = make_rollouts("local", WHITE, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batch = rollouts.collect(make_agent("ppo", **SETTINGS)._explorer(), 4)
    parts = batch["layers"].split(2)
    assert all(not torch.equal(parts[0], part) for part in parts[1:])


@pytest.mark.slow
def test_a_worker_that_died_is_an_error():
    rollouts = make_rollouts("local", WHITE, 0, 2)
    try:
        rollouts._workers[1][0].terminate()
        rollouts._workers[1][0].join()
        with pytest.raises((RuntimeError, BrokenPipeError)):
            rollouts.state_dict()
    finally:
        rollouts.close()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_input_of_an_environment_is_told_from_its_process(processes):
    world = World(slots=4, shards=2, problems=(("mlp-1x8", "images"),), devices=("no-such",))
    rollouts = make_rollouts("local", world, 0, processes)
    try:
        with pytest.raises(InputError, match="no-such"):
            rollouts.collect(make_agent("ppo", **SETTINGS)._explorer(), 1)
    finally:
        rollouts.close()


@pytest.mark.parametrize("name", BACKENDS.names())
def test_no_processes_are_an_error(name):
    with pytest.raises(InputError, match="processes: value is 0; allowed is at least 1"):
        make_rollouts(name, WHITE, 0, 0)


def test_unknown_backends_and_shards_that_do_not_divide_are_errors():
    with pytest.raises(InputError, match="local, ray"):
        make_rollouts("threads", WHITE, 0)
    with pytest.raises(InputError, match="divisor of the slots, 8"):
        World(slots=8, shards=3)
    with pytest.raises(InputError, match="at most 1, so that each has a slot for each of 2"):
        make_rollouts("local", World(slots=2, shards=2), 0)


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"nettime\[ray\]"):
        make_rollouts("ray", WHITE, 0, 2)
