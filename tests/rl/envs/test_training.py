"""Episodes that are real training: their clock, their target, their ends, and what they read."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from hwsim import InputError
from rl.envs.act import KEEP, SPARSIFY
from rl.envs.interface import Context
from rl.envs.slots import Topology
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.runs.dense import dense_runs
from rl.runs.problems import Problem
from sparse_train.tasks.mlm import PreparedText

SMALL = "bert-1x8"


def config(tiny, **changes):
    given = {"problems": ((SMALL, tiny),), "devices": ("ideal",), "seeds": (0, 8), "budget": 2.0}
    return TrainingConfig(**{**given, **changes})


def env(tiny, batch=1, seed=0, reward="log_ratio", **changes):
    return SparseTrainingEnv(config(tiny, **changes), batch, seed=seed, reward=reward)


def play(world, choose, contexts=None):
    """One episode per slot: (sum of rewards, last observation of each slot's episode)."""
    seen = world.reset(contexts=contexts) if contexts else world.reset()
    total = torch.zeros(world.batch_size)
    running = torch.ones(world.batch_size, dtype=torch.bool)
    while running.any():
        seen["action"] = choose(world)
        seen = world.step(seen)["next"]
        total += seen["reward"][:, 0] * running
        running &= ~seen["done"][:, 0]
    return total, seen


def keep(world):
    return torch.full(world.density.shape, KEEP)


def toward(density):
    return lambda world: world.action_for(torch.full(world.density.shape, density))


def test_the_environment_keeps_torchrl_specs(tiny):
    for mode in ("step", "density"):
        check_env_specs(env(tiny, 2, mode=mode), seed=1)


def test_a_dense_episode_takes_exactly_the_dense_time(tiny):
    total, seen = play(env(tiny, 3, devices=("ideal", "zen4", "wafer")), keep)
    torch.testing.assert_close(seen["time"], torch.ones(3, 1))
    torch.testing.assert_close(total, torch.zeros(3), atol=1e-6, rtol=0)


def test_dense_rounds_are_branched_and_not_trained_again(tiny, monkeypatch):
    world = env(tiny)
    world.reset()

    def forbidden(*_):
        raise AssertionError("a dense round was trained")

    monkeypatch.setattr(world.groups[0].networks, "train", forbidden)
    _, seen = play(world, keep)
    assert seen["time"].item() == pytest.approx(1.0)


def test_a_branch_goes_on_as_the_run_that_was_trained_through(tiny):
    context = [Context(SMALL, tiny, "ideal", 1.0, 3)]
    late = {"choose": lambda w: toward(0.25)(w) if w.state["rounds"][0] >= 3 else keep(w)}
    branched = env(tiny)
    total, _ = play(branched, late["choose"], context)
    through = env(tiny)
    through.groups[0].__class__ = type("Through", (type(through.groups[0]),), {})
    through.reset(contexts=context)
    through.groups[0].from_dense[:] = False
    whole = torch.zeros(1)
    over = False
    while not over:
        seen = through.step(TensorDict({"action": late["choose"](through)}, [1]))["next"]
        whole, over = whole + seen["reward"][:, 0], bool(seen["done"])
    torch.testing.assert_close(total, whole, atol=1e-3, rtol=0)


def test_a_prefix_is_the_dense_run_up_to_there(tiny):
    world = env(tiny, prefix=2)
    world.reset(contexts=[Context(SMALL, tiny, "ideal", 1.0, 1)])
    run = dense_runs(Problem(SMALL, tiny)).get(1)
    assert world.state["loss"][0] == run.losses[2]
    assert world.state["rounds"][0] == 2
    assert world.state["spent_s"][0] == pytest.approx(2 * 3 * float(world.priced.step_s[0]))


def actions(world, rng):
    return torch.randint(0, 3, world.density.shape, generator=rng)


@pytest.mark.parametrize("reward", ["log_ratio", "time_cost"])
def test_rewards_sum_to_what_the_whole_run_gained(tiny, reward):
    rng = torch.Generator().manual_seed(4)
    total, seen = play(env(tiny, 4, reward=reward), lambda w: actions(w, rng))
    time = seen["time"][:, 0]
    expected = -time.log() if reward == "log_ratio" else 1 - time
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=0)


@settings(max_examples=3, deadline=None)
@given(st.lists(st.sampled_from([0.06, 0.25, 1.0]), min_size=3, max_size=3), st.integers(0, 7))
def test_the_return_does_not_depend_on_how_often_the_agent_decides(tiny, plan, seed):
    context = [Context(SMALL, tiny, "ideal", 1.0, seed)]

    def choose(world):
        at = min(int(world.state["rounds"][0]) // 4, len(plan) - 1)
        return torch.full(world.density.shape, plan[at])

    returns = []
    for every in (1, 4):
        world = env(tiny, mode="density", decide_every=every)
        total, _ = play(world, choose, context)
        returns.append(total.item())
    assert returns == pytest.approx([returns[0]] * 2, abs=1e-5)


def test_cheaper_at_the_same_loss_scores_better(tiny):
    scores = []
    for device in ("ideal", "zen4"):
        total, seen = play(env(tiny), toward(0.1), [Context(SMALL, tiny, device, 1.0, 2)])
        scores.append((seen["time"].item(), total.item()))
    # The same run on two machines: the one on which sparsity saves more pays more.
    assert (scores[0][0] < scores[1][0]) == (scores[0][1] > scores[1][1])
    assert scores[0] != scores[1]


def test_densities_are_what_was_reached_and_keep_changes_no_weight(tiny):
    world = env(tiny, topology=Topology("random", "random"))
    world.reset()
    group = world.groups[0]
    world.step(TensorDict({"action": torch.full(world.density.shape, SPARSIFY)}, [1]))
    nnz, mask = world.nnz.clone(), group.networks.population.mask.clone()
    assert torch.equal(group.networks.population.nnz, nnz)
    assert nnz[0].tolist() == [round(0.5 * s) for s in world.sizes[0].tolist()]
    world.step(TensorDict({"action": keep(world)}, [1]))
    assert torch.equal(world.nnz, nnz) and torch.equal(group.networks.population.mask, mask)
    for _ in range(9):
        world.step(TensorDict({"action": torch.full(world.density.shape, SPARSIFY)}, [1]))
    assert (world.density >= 1 / 32).all()


def test_at_equal_density_rigl_and_set_move_weights_and_static_does_not(tiny):
    moved = {}
    for name, topology in {
        "static": Topology(), "rigl": Topology(drop_fraction=0.3),
        "set": Topology(grow="random", drop_fraction=0.3),
    }.items():  # fmt: skip
        world = env(tiny, topology=topology, mode="density")
        world.reset(contexts=[Context(SMALL, tiny, "zen4", 1.0, 0)])
        action = torch.full(world.density.shape, 0.3)
        world.step(TensorDict({"action": action}, [1]))
        before, spent = (
            world.groups[0].networks.population.mask.clone(),
            world.state["spent_s"].clone(),
        )
        world.step(TensorDict({"action": action}, [1]))
        changed = (world.groups[0].networks.population.mask != before).any().item()
        moved[name] = changed, float(world.state["spent_s"] - spent)
    assert not moved["static"][0] and moved["rigl"][0] and moved["set"][0]
    # Updates cost time, and a dense gradient more than none.
    assert moved["static"][1] < moved["set"][1] < moved["rigl"][1]


def test_test_data_is_never_read(tiny, monkeypatch):
    asked = []
    original = PreparedText._stream

    def watched(self, split):
        asked.append(split)
        if split == "test":
            raise AssertionError("test data was read")
        return original(self, split)

    monkeypatch.setattr(PreparedText, "_stream", watched)
    Problem(SMALL, tiny).data._evaluation.clear()
    dense_runs.cache_clear()
    rng = torch.Generator().manual_seed(0)
    world = env(tiny, 2)
    play(world, lambda w: actions(w, rng))
    assert set(asked) == {"validation"}
    monkeypatch.undo()
    assert torch.isfinite(world.evaluate("test")["loss"]).all()


def test_a_loss_that_is_not_finite_ends_in_a_penalised_finite_episode(tiny):
    world = env(tiny, 2)
    seen = world.reset()
    world.groups[0].networks.population.weights[0] = math.nan
    seen["action"] = torch.full(world.density.shape, SPARSIFY)
    seen = world.step(seen)["next"]
    assert seen["done"][:, 0].tolist() == [True, False]
    assert world.state["failed"].tolist() == [1.0, 0.0]
    assert seen["time"][0].item() == pytest.approx(3.0)
    assert seen["reward"][0].item() == pytest.approx(-math.log(3.0))
    for key in ("layers", "whole", "time", "reward"):
        assert torch.isfinite(seen[key]).all(), key
    again = world.step(world.reset().set("action", keep(world)))["next"]
    assert torch.isfinite(again["reward"]).all() and world.state["failed"].tolist() == [0.0, 0.0]


def test_a_target_never_reached_ends_when_the_budget_is_used_up(tiny):
    world = env(tiny, budget=1.5, min_density=1 / 128)
    world.reset(contexts=[Context(SMALL, tiny, "ideal", 1.0, 0)])
    world.state["target_loss"][0] = 0.0
    total, over, decisions = 0.0, False, 0
    while not over:
        seen = world.step(TensorDict({"action": keep(world)}, [1]))["next"]
        total, over, decisions = total + seen["reward"].item(), bool(seen["done"]), decisions + 1
    assert decisions == math.ceil(1.5 * float(world.state["dense_rounds"]))
    assert bool(seen["terminated"]) and not bool(seen["truncated"])
    assert math.isfinite(total) and total < 0


def test_the_accuracy_reward_sums_to_the_accuracy_gained(tiny):
    world = env(tiny, 2, reward="accuracy", stop_at_target=False, budget=1.0, mode="density")
    first = world.reset(contexts=[Context(SMALL, tiny, "ideal", 1.0, s) for s in (0, 1)])
    assert first["done"].sum() == 0
    before = world.state["accuracy"].clone()
    contexts = list(world.contexts)
    total, _ = play(world, toward(0.5), contexts)
    after = world.evaluate("validation")["accuracy"]
    torch.testing.assert_close(total, (after - before).float(), atol=1e-6, rtol=0)


def test_without_a_target_every_run_has_as_many_steps_as_the_dense_one(tiny):
    world = env(tiny, 3, stop_at_target=False, budget=1.0)
    play(world, keep)
    assert world.groups[0].networks.population.steps.tolist() == [24, 24, 24]
    assert world.state["rounds"].tolist() == [8.0, 8.0, 8.0]


def test_saved_in_the_middle_and_loaded_it_goes_on_to_the_bit(tiny):
    problems = ((SMALL, tiny), ("bert-2x8", tiny))

    def run(world, seen, steps, start):
        found = []
        for i in range(start, start + steps):
            rng = torch.Generator().manual_seed(i)
            seen["action"] = actions(world, rng)
            seen = world.step(seen)["next"]
            found.append(seen["reward"].clone())
            if seen["done"].any():
                seen["_reset"] = seen["done"].clone()
                seen = world.reset(seen)
        return found, seen

    options = {"problems": problems, "devices": ("ideal",), "budget": 1.0}
    whole = env(tiny, 4, **options)
    _, seen = run(whole, whole.reset(), 3, 0)
    held = io.BytesIO()
    torch.save(whole.state_dict(), held)
    held.seek(0)
    rest, last = run(whole, seen.clone(), 6, 3)
    resumed = env(tiny, 4, seed=9, **options)
    resumed.load_state_dict(torch.load(held, weights_only=True))
    again, final = run(resumed, seen.clone(), 6, 3)
    assert all(torch.equal(a, b) for a, b in zip(rest, again, strict=True))
    assert torch.equal(last["layers"], final["layers"])


def test_networks_of_different_depth_share_a_batch(tiny):
    world = env(tiny, 4, problems=((SMALL, tiny), ("bert-2x8", tiny)))
    seen = world.reset()
    assert seen["live"].sum(1).tolist() == [7, 13, 7, 13]
    assert not seen["layers"][0, 7:].any()
    assert [len(s) for s in world.shapes] == [7, 13, 7, 13]
    torch.testing.assert_close(world.layer_progress(torch.ones(4, 13)).sum(1), torch.ones(4))
    dense = world.fixed_time + world.layer_time(torch.ones(4, 13)).sum(1)
    torch.testing.assert_close(dense, torch.ones(4))


def test_images_are_a_problem_too():
    world = SparseTrainingEnv(
        TrainingConfig(problems=(("mlp-2x8", "images"),), devices=("ideal",), seeds=(0, 8)), 1
    )
    _, seen = play(world, keep)
    assert seen["time"].item() == pytest.approx(1.0)
    assert 0.5 < world.state["accuracy"][0] <= 1.0
    with pytest.raises(InputError, match="allowed for task images is mlp-LAYERSxWIDTH"):
        Problem("bert-1x8", "images")


def test_a_narrower_dense_network_is_held_against_the_one_it_replaces(tiny):
    world = env(tiny)
    world.reset(contexts=[Context(SMALL, tiny, "ideal", 1.0, 0, reference="bert-1x16")])
    run = dense_runs(Problem("bert-1x16", tiny)).get(0)
    assert world.state["target_loss"][0] == pytest.approx(run.target_loss(1.0))
    assert world.state["dense_s"][0] > world.priced.step_s[0] * 3 * run.rounds_to(
        run.target_loss(1.0)
    )


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"problems": ()}, "problems"), ({"devices": ()}, "devices"),
        ({"targets": (0.0, 1.0)}, "targets"), ({"targets": (0.9, 0.8)}, "targets"),
        ({"seeds": (3, 3)}, "seeds"), ({"decide_every": 0}, "decide_every"),
        ({"budget": 0.5}, "budget"), ({"factor": 1.0}, "factor"),
        ({"min_density": 1.0}, "min_density"), ({"min_density": 0.0}, "min_density"),
        ({"prefix": 8}, "prefix: value is 8"), ({"problems": (("bert-1x8", "nothing"),)}, "task"),
        ({"problems": (("cnn-1x8", "tiny"),)}, "network: value is 'cnn-1x8'"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(tiny, bad, named):
    with pytest.raises(InputError, match=named):
        config(tiny, **bad)


def test_bad_contexts_are_named(tiny):
    with pytest.raises(InputError, match="unknown device 'abacus'"):
        env(tiny).reset(contexts=[Context(SMALL, tiny, "abacus")])
    with pytest.raises(InputError, match="slot 0 is given bert-2x8"):
        env(tiny).reset(contexts=[Context("bert-2x8", tiny, "ideal")])
    with pytest.raises(InputError, match="contexts: 2 are given"):
        env(tiny).reset(contexts=[Context(SMALL, tiny, "ideal")] * 2)
    with pytest.raises(InputError, match="target: value is 0"):
        Context(SMALL, tiny, "ideal", 0.0)
    with pytest.raises(InputError, match="width: value is 3"):
        SparseTrainingEnv(config(tiny), 1, width=3)
    with pytest.raises(InputError, match="action mode"):
        env(tiny, mode="jump")
    with pytest.raises(InputError, match="unknown drop criterion"):
        play(env(tiny, topology=Topology(drop="worst")), toward(0.1))
