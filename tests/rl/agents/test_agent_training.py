"""Training on disk: killed and taken up it is the same agent; other worlds are refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from hwsim import InputError
from rl.agents import checkpoint
from rl.agents.learn import CHECKPOINT, CURVE, train
from rl.algorithms import ALGORITHMS, make_agent
from rl.envs.whitebox import WhiteBoxEnv
from rl.worlds import World

WORLD = World(kind="whitebox", slots=8, decisions=6, budget=1.5)
SMALL = {
    "ppo": {"iterations": 6, "steps": 8, "epochs": 1, "minibatches": 2},
    "dqn": {"iterations": 6, "steps": 8, "updates": 3, "batch": 16, "capacity": 100},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def killed_after(count, folder, code):
    """Runs `code` in a process of its own; SIGKILL once `count` iterations are in its curve."""
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    curve = folder / CURVE
    until = time.monotonic() + 120
    while time.monotonic() < until and child.poll() is None:
        if curve.exists() and len(curve.read_text().splitlines()) > count:
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it ended before it was killed"


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS.names())
def test_killed_in_the_middle_and_resumed_is_the_same_agent_to_the_bit(algorithm, tmp_path):
    settings = {**SMALL[algorithm], "iterations": 20}
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\nfrom rl.agents.learn import train\nfrom rl.worlds import World\n"
        f"train(Path({str(tmp_path / 'b')!r}), World(**{dataclasses.asdict(WORLD)!r}), "
        f"{algorithm!r}, {settings!r})"
    )
    whole = train(tmp_path / "a", WORLD, algorithm, settings)
    killed_after(2, tmp_path / "b", code)
    half = checkpoint.load(tmp_path / "b" / CHECKPOINT)
    assert 2 <= half.agent["iteration"] < 20
    resumed = train(tmp_path / "b", WORLD, algorithm, settings)
    assert same(whole.agent, resumed.agent) and same(whole.env, resumed.env)
    assert repr(whole.curve) == repr(resumed.curve)


def test_an_agent_of_real_runs_goes_on_as_if_uninterrupted(tiny, tmp_path):
    world = World(
        problems=(("bert-1x8", tiny),), devices=("ideal",), slots=2, budget=1.0, seeds=(0, 8)
    )
    settings = {"iterations": 2, "steps": 3, "epochs": 1, "minibatches": 2}
    whole = train(tmp_path / "a", world, "ppo", settings)
    agent, env = make_agent("ppo", **settings), world.make(0)
    rows = []
    agent.train(env, report=rows.append, stop_after=1)
    checkpoint.save(tmp_path / "b" / CHECKPOINT, agent, world, env, rows, 0.0)
    resumed = train(tmp_path / "b", world, "ppo", settings)
    assert same(whole.agent, resumed.agent) and same(whole.env, resumed.env)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS.names())
def test_every_algorithm_learns_to_be_faster_than_dense(algorithm):
    settings = {
        "ppo": {"iterations": 6, "steps": 12, "lr": 6e-3},
        "dqn": {"iterations": 12, "steps": 12, "updates": 40, "batch": 256, "lr": 5e-3},
    }[algorithm]
    agent = make_agent(algorithm, **settings)
    agent.train(dataclasses.replace(WORLD, slots=64).make(0))
    seen = WhiteBoxEnv(WORLD.formula(), 64, seed=9).reset()
    assert agent.act(seen).shape == (64, 6)
    env = WhiteBoxEnv(WORLD.formula(), 256, seed=9)
    from rl.evaluate import speed_ups

    assert speed_ups(env, lambda _, seen: agent.act(seen)).mean() > 1.15


@pytest.mark.parametrize("algorithm", ALGORITHMS.names())
def test_rewards_that_are_not_finite_leave_the_agent_as_it_was(algorithm):
    env = WORLD.make(0)
    env.reward_function = lambda before, after: torch.full_like(after.spent_s, float("nan"))
    agent = make_agent(algorithm, **SMALL[algorithm])
    before = agent.state_dict()
    with pytest.raises(InputError, match="reward that is not finite"):
        agent.train(env)
    assert same(before, agent.state_dict())


def test_a_loss_that_blows_up_in_mid_iteration_leaves_the_agent_as_it_was(monkeypatch):
    agent = make_agent("ppo", **SMALL["ppo"])
    calls = []

    def finite(self, loss):
        calls.append(1)
        if len(calls) == 2:
            raise InputError("loss is nan")

    monkeypatch.setattr(type(agent), "_finite", finite)
    before = [p.detach().clone() for p in agent.loss.parameters()]
    with pytest.raises(InputError):
        agent.train(WORLD.make(0))
    assert agent.iteration == 0
    assert all(torch.equal(a, b) for a, b in zip(before, agent.loss.parameters(), strict=True))


def test_hidden_features_do_not_reach_the_policy():
    shown, blind = make_agent("ppo"), make_agent("ppo", hide=("time_saved", "log_time"))
    seen = WORLD.make(0).reset()
    changed = seen.clone()
    from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES

    changed["layers"][..., LAYER_FEATURES.index("time_saved")] += 3.0
    changed["whole"][..., GLOBAL_FEATURES.index("log_time")] += 3.0

    def logits(agent, observation):
        return agent.actor(observation.clone())["logits"]

    assert torch.equal(logits(blind, seen), logits(blind, changed))
    assert not torch.equal(logits(shown, seen), logits(shown, changed))


def test_another_setting_in_the_same_folder_is_refused(tmp_path):
    train(tmp_path, WORLD, "ppo", {**SMALL["ppo"], "iterations": 1})
    with pytest.raises(InputError, match="iterations"):
        train(tmp_path, WORLD, "ppo", SMALL["ppo"])
    with pytest.raises(InputError, match="decisions"):
        world = dataclasses.replace(WORLD, decisions=7)
        train(tmp_path, world, "ppo", {**SMALL["ppo"], "iterations": 1})


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(40)])
def test_damaged_checkpoints_are_one_line(content, tmp_path):
    path = tmp_path / CHECKPOINT
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_a_curve_that_was_not_written_any_more_is_written_on_going_on(tmp_path):
    train(tmp_path, WORLD, "ppo", SMALL["ppo"])
    whole = (tmp_path / CURVE).read_bytes()
    (tmp_path / CURVE).write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    train(tmp_path, WORLD, "ppo", SMALL["ppo"])
    assert (tmp_path / CURVE).read_bytes() == whole


def test_numbers_that_were_never_written_are_not_taken_for_weights(tmp_path):
    train(tmp_path, WORLD, "ppo", {**SMALL["ppo"], "iterations": 1})
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for start in range(0, len(whole), len(whole) // 23):
        data = bytearray(whole)
        data[start : start + 512] = bytes(len(data[start : start + 512]))
        path.write_bytes(data)
        try:
            found = checkpoint.load(path)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # what is between the tensors says nothing
            path.write_bytes(whole)
            expected = checkpoint.load(path)
            assert repr(found.agent) == repr(expected.agent)
            assert repr(found.env) == repr(expected.env)


@pytest.mark.parametrize("spoil", [lambda s: s["loss"].clear(), lambda s: s.pop("optimizer")])
def test_weights_of_another_version_are_one_line(spoil, tmp_path):
    saved = train(tmp_path, WORLD, "ppo", {**SMALL["ppo"], "iterations": 1})
    spoil(saved.agent)
    with pytest.raises(InputError, match="allowed is one that this version has trained") as error:
        saved.restore()
    assert "\n" not in str(error.value)


def test_agents_from_before_densities_could_be_named_act_in_steps(tmp_path):
    path = tmp_path / CHECKPOINT
    train(tmp_path, WORLD, "ppo", {**SMALL["ppo"], "iterations": 1})
    content = torch.load(path, weights_only=True)
    settings = json.loads(content["settings"])
    for name in ("mode", "min_density", "start", "spread"):
        del settings[name]
    torch.save({**content, "settings": json.dumps(settings)}, path)
    saved = checkpoint.load(path)
    seen = WORLD.make(0).reset()
    assert set(saved.restore().act(seen).flatten().tolist()) <= {0, 1, 2}
    assert saved.world.mode == "step"
    again = train(tmp_path, WORLD, "ppo", {**SMALL["ppo"], "iterations": 1})
    assert again.agent["iteration"] == 1 and len(again.curve) == 1


def test_an_agent_acts_as_its_world_says(tmp_path):
    world = dataclasses.replace(WORLD, mode="density", min_density=1 / 16)
    saved = train(tmp_path, world, "ppo", {**SMALL["ppo"], "iterations": 1})
    found = saved.restore().act(world.make(0).reset())
    assert saved.settings["mode"] == "density" and saved.settings["min_density"] == 1 / 16
    assert found.dtype == torch.float32 and found.shape == (8, 6)
    with pytest.raises(
        InputError, match="mode: value is 'density'; allowed is the world's, 'step'"
    ):
        train(tmp_path / "other", WORLD, "ppo", {**SMALL["ppo"], "mode": "density"})


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        checkpoint.load(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("algorithm", "settings", "message"),
    [
        ("pppo", {}, "did you mean 'ppo'"),
        ("ppo", {"learning_rate": 1.0}, "valid: "),
        ("ppo", {"algorithm": "dqn"}, "unknown setting of ppo 'algorithm'"),
        ("ppo", {"iterations": 0}, "at least 1"),
        ("dqn", {"hide": ("speed",)}, "unknown feature 'speed'"),
    ],
)
def test_unknown_algorithms_settings_and_features_are_refused(algorithm, settings, message):
    with pytest.raises(InputError, match=message):
        make_agent(algorithm, **settings)


def test_a_world_survives_json():
    world = World(kind="whitebox", problems=(("bert-1x8", "mlm"),), layers=(2, 5))
    assert World.from_json(json.loads(json.dumps(dataclasses.asdict(world)))) == world
    with pytest.raises(InputError, match="unknown kind"):
        World(kind="white")
