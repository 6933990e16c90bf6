"""An agent's experience, and the task that learns from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwsim import InputError, load_device
from sparse_train.runs.config import TrainConfig
from sparse_train.runs.run import Run
from sparse_train.tasks import make_task
from sparse_train.trainer import train

pytest.importorskip("gymnasium", reason="it has the environments: pip install 'nettime[tasks]'")

from sparse_train.data.experience import ENVIRONMENTS, Experience, mean_return

OPTIONS = {"warm_up": 40, "capacity": 60, "explore_steps": 50, "target_interval": 5,
           "evaluation_episodes": 3}  # fmt: skip


def config(**changes):
    settings = {
        "task": "control", "task_options": OPTIONS, "model_options": {"width": 16},
        "algorithm": "rigl", "density": 0.4, "update_interval": 4, "steps": 30, "batch_size": 8,
        "warmup_steps": 2, "eval_interval": 15, "threads": 1,
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


def alternating():
    actions = iter(range(10**6))
    return lambda seen: next(actions) % 2


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_transitions_follow_one_another_and_the_oldest_go(name):
    experience = Experience(name, 30, lambda episode: episode)
    for _ in range(45):
        experience.act(alternating())
    seen = experience.seen
    assert len(experience) == 30 and experience.steps == 45
    order = torch.arange(45 - 30, 45) % 30
    now, after = seen["observations"][order], seen["next_observations"][order]
    follows = (now[1:] == after[:-1]).all(1)
    assert follows.float().mean() > 0.8  # all but the first steps of episodes
    assert after.abs().max() < 10


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("steps", [0, 7, 60])
def test_experience_goes_on_in_the_middle_of_an_episode(name, steps):
    one = Experience(name, 50, lambda episode: 10 + episode)
    policy = alternating()
    for _ in range(steps):
        one.act(policy)
    two = Experience(name, 50, lambda episode: 10 + episode)
    two.load_state_dict(one.state_dict())
    for experience in (one, two):
        policy = alternating()
        for _ in range(30):
            experience.act(policy)
    assert all(torch.equal(one.seen[key], two.seen[key]) for key in one.seen)


def test_an_episode_that_ended_itself_is_told_from_one_that_was_cut():
    fallen = Experience("CartPole-v1", 600, lambda episode: 0)
    for _ in range(60):
        fallen.act(lambda seen: 0)
    assert fallen.seen["ended"].sum() > 3
    cut = Experience("MountainCar-v0", 600, lambda episode: 0)
    for _ in range(450):
        cut.act(lambda seen: 1)
    assert cut.seen["ended"].sum() == 0 and cut._episode == 2


def test_before_any_experience_a_batch_is_zeros_of_the_right_shapes():
    batch = make_task("control", OPTIONS).prepare().batch(1, 8, 0)
    assert {n: tuple(t.shape) for n, t in batch.items()} == {
        "observations": (8, 4), "actions": (8, 1), "rewards": (8,), "next_observations": (8, 4),
        "ended": (8,),
    }  # fmt: skip
    assert not any(t.any() for t in batch.values())


def test_the_mean_return_is_that_of_episodes_one_by_one():
    def policy(seen):
        return (seen[:, 2] > 0).astype(int)

    seeds = [3, 5, 8]
    together = mean_return("CartPole-v1", seeds, policy)
    alone = [mean_return("CartPole-v1", [seed], policy) for seed in seeds]
    assert together == pytest.approx(tuple(np.mean(alone, axis=0)))


def test_the_goal_is_the_reward_and_the_discounted_best_of_the_target():
    task = make_task("control", OPTIONS).prepare()
    model = task.build_model("q_network", "small", {"width": 8, "discount": 0.5})
    with torch.no_grad():
        for p in model.online.parameters():
            p.add_(0.1)  # no longer its target
    torch.manual_seed(0)
    batch = {
        "observations": torch.randn(3, 4), "actions": torch.tensor([[0], [1], [1]]),
        "rewards": torch.tensor([1.0, 2, 3]), "next_observations": torch.randn(3, 4),
        "ended": torch.tensor([0.0, 1, 0]),
    }  # fmt: skip
    later = model.target(batch["next_observations"]).max(1).values
    goal = batch["rewards"] + 0.5 * torch.tensor([1.0, 0, 1]) * later
    values = model.online(batch["observations"])[torch.arange(3), [0, 1, 1]]
    expected = torch.nn.functional.smooth_l1_loss(values, goal)
    loss = task.loss(model, batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is None for p in model.target.parameters())


def test_the_target_is_copied_in_its_interval_and_never_masked():
    task = make_task("control", OPTIONS).prepare()
    run = Run(config(), task)
    assert set(run.sparsifier.masks()) == {"online.0", "online.2"}
    equal = []
    for _ in range(11):
        run.before_step()
        equal.append(torch.equal(run.model.target[0].weight, run.model.online[0].weight))
        run.advance()
    assert [i + 1 for i, same in enumerate(equal) if same] == [1, 6, 11]


def test_a_new_run_begins_without_experience_and_equal_runs_are_equal():
    task = make_task("control", OPTIONS).prepare()
    losses = []
    for _ in range(2):
        run = Run(config(), task)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for p in run.model.online.parameters():
                torch.nn.init.normal_(p, std=0.3)
            for _ in range(6):
                run.before_step()
                run.advance()
        losses.append([row["loss"] for row in run.metrics])
    assert losses[0] == losses[1]


def test_a_run_is_recorded_and_priced(tmp_path):
    record = train(config(), tmp_path / "run")
    assert record.steps == 30
    rows = record.evaluations
    assert rows["loss"].to_list() == [-value for value in rows["return"].to_list()]
    for name in ("ideal", "a100", "wafer", "zen3", "systolic"):
        assert record.net_time(load_device(name)).seconds[-1] > 0


@pytest.mark.slow
def test_a_sparse_agent_learns_to_balance(tmp_path):
    options = {"explore_steps": 1500, "evaluation_episodes": 10}
    record = train(
        config(task_options=options, model_options={}, density=0.2, update_interval=100,
               steps=2000, batch_size=64, learning_rate=1e-3, clip_norm=10.0, eval_interval=250),
        tmp_path / "run",
    )  # fmt: skip
    returns = record.evaluations["return"].to_list()
    assert returns[0] < 60 and max(returns) > 150  # a random one balances for some 20 steps


@pytest.mark.parametrize(
    "options",
    [{"environment": "os:system"}, {"environment": "LunarLander-v3"}, {"capacity": 0},
     {"explore_share": 1.5}, {"warm_up": 0}],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        make_task("control", options)


def test_state_of_another_task_is_refused():
    with pytest.raises(InputError, match="no experience"):
        make_task("control", OPTIONS).prepare().load_state_dict({})
