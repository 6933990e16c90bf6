"""`SparseTraining-v0`: the checkers of those who would use it, its options, its errors."""

import copy
import pickle
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rl  # noqa: F401  registers the environment
from hwsim import InputError

SMALL = "bert-1x8"


@pytest.fixture
def make(tiny):
    def made(**changes):
        given = {"problems": ((SMALL, tiny),), "devices": ("ideal",), "seeds": (0, 8)}
        return gymnasium.make("SparseTraining-v0", **{**given, **changes}).unwrapped

    return made


@pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")
@pytest.mark.parametrize("mode", ["step", "density"])
def test_gymnasium_accepts_it(make, mode):
    check_env(make(mode=mode, width=8))


@pytest.mark.filterwarnings("ignore:Your observation:UserWarning")
@pytest.mark.filterwarnings("ignore:We recommend:UserWarning")
@pytest.mark.parametrize("mode", ["step", "density"])
def test_stable_baselines_accepts_it(make, mode):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(make(mode=mode, width=8))


def test_options_choose_network_task_device_target_and_seed(make, tiny):
    env = make(width=13)
    chosen = {"network": "bert-2x8", "task": tiny, "device": "zen4", "target": 0.9, "seed": 5}
    seen, info = env.reset(options=chosen)
    assert info["context"] == {**chosen, "reference": ""}
    assert seen["live"].tolist() == [1] * 13
    assert len(info["layers"]) == 13
    seen, info = env.reset(seed=0)
    assert info["context"]["network"] == SMALL
    assert seen["live"].tolist() == [1] * 7 + [0] * 6


def test_the_same_options_give_the_same_episode(make, tiny):
    chosen = {"network": SMALL, "task": tiny, "device": "ideal", "target": 1.0, "seed": 3}
    returns = []
    for env in (make(), make()):
        env.reset(options=chosen)
        rng, total, over = np.random.default_rng(1), [], False
        while not over:
            _, reward, over, truncated, info = env.step(rng.integers(0, 3, 16))
            assert not truncated
            total.append(reward)
        returns.append(total)
        assert info["reached"] == (info["loss"] <= info["target_loss"])
    assert returns[0] == returns[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"colour": 1}, "unknown option 'colour'"),
        ({"network": "bert"}, "network: value is 'bert'"),
        ({"task": "chess"}, "unknown task 'chess'.*mlm"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"target": 1.5}, "target: value is 1.5"),
        ({"seed": -1}, "seed: value is -1"),
        ({"network": "bert-9x8"}, "width: value is 16; allowed is at least 55"),
    ],
)
def test_bad_options_are_named(make, options, named):
    with pytest.raises(InputError, match=named):
        make().reset(options=options)


def test_bad_calls_are_named(make):
    with pytest.raises(InputError, match="call reset first"):
        make().step(np.ones(16, int))
    with pytest.raises(InputError, match="unknown setting 'devcies'; did you mean 'devices'"):
        make(devcies=("ideal",))
    env = make()
    env.reset(seed=0)
    with pytest.raises(InputError, match=r"action: shape is \(3,\)"):
        env.step(np.ones(3, int))


@pytest.mark.parametrize(
    ("mode", "value", "named"),
    [
        ("step", 7, "value is 7 at layer 2; allowed is 0 .sparsify., 1 .keep., 2 .densify."),
        ("step", -1, "value is -1"),
        ("step", 0.5, "value is 0.5"),
        ("step", np.nan, "value is nan"),
        ("density", np.nan, "value is nan at layer 2; allowed is a finite density"),
        ("density", np.inf, "value is inf"),
        ("density", -np.inf, "value is -inf"),
    ],
)
def test_what_is_no_action_is_refused(make, mode, value, named):
    env = make(mode=mode)
    env.reset(seed=0)
    action = np.ones(16)
    action[2] = value
    before = env.state_dict()
    with pytest.raises(InputError, match=named):
        env.step(action)
    assert same(env.state_dict(), before)
    with pytest.raises(InputError, match="allowed are integers or floats"):
        env.step(np.array(["a"] * 16))


def test_a_density_outside_its_range_is_the_nearest_inside(make):
    reached = []
    for value in (1e30, 2.0, 1.0, -1e30, 0.0, 1 / 32):
        env = make(mode="density")
        env.reset(seed=0, options={"seed": 1, "target": 1.0})
        reached.append(env.step(np.full(16, value))[0]["density"].tolist())
    assert reached[0] == reached[1] == reached[2] == [1.0] * 16
    assert reached[3] == reached[4] == reached[5] < reached[0]


def test_a_step_after_the_end_is_an_error(make):
    env = make()
    env.reset(seed=0)
    over = False
    while not over:
        over = env.step(np.ones(16, int))[2]
    with pytest.raises(InputError, match="the episode has ended; call reset first"):
        env.step(np.ones(16, int))
    env.reset()
    env.step(np.ones(16, int))


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(one, other, equal_nan=True) if hasattr(one, "shape") else one == other


def rest(env, seed):
    """What comes of random steps to the end, and of a reset after it."""
    rng, found, over = np.random.default_rng(seed), [], False
    while not over:
        seen, reward, over, _, info = env.step(rng.integers(0, 3, 16))
        found.append((seen, reward, info))
    return [*found, env.reset()]


def stored(env):
    made = gymnasium.make(env.spec).unwrapped if env.spec else type(env)(env.config)
    made.load_state_dict(env.state_dict())
    return made


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env)), stored],
    ids=["deepcopy", "pickle", "state_dict"],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_copy_goes_on_alike(make, copied, begun):
    env = make()
    env.reset(seed=3)
    if begun:
        env.step(np.zeros(16, int))
    other = copied(env)
    assert other is not env and other.observation_space == env.observation_space
    assert same(rest(other, 5), rest(env, 5))


def test_a_copy_of_one_that_has_not_begun_begins_alike(make):
    env = make()
    other = copy.deepcopy(env)
    assert same(env.reset(seed=1), other.reset(seed=1))


def test_a_state_of_something_else_is_an_input_error(make):
    with pytest.raises(InputError, match="problem, run, random, history is missing"):
        make().load_state_dict({"weights": 1})


@pytest.mark.filterwarnings("ignore:.*render_mode:UserWarning")
@pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")
def test_it_renders(make, tiny):
    env = make(render_mode="ansi")
    assert env.render_mode == "ansi"
    with pytest.raises(InputError, match="no episode has begun"):
        env.render()
    env.reset(seed=0)
    env.step(np.zeros(16, int))
    text = env.render()
    assert f"{SMALL} on {tiny}, ideal" in text
    assert text.count(" 50 %") == 7  # of each layer, one line
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.zeros(16, int))
    image = env.render()
    assert image.shape == (7 * 12, 2 * 12, 3)
    assert image[0, 0].tolist() == [0, 0, 0]  # dense
    assert image[0, -1].tolist() == [128, 128, 128]
    with pytest.raises(InputError, match=r"unknown render mode .svg..*ansi, rgb_array"):
        make(render_mode="svg")


def vector(tiny, n, **changes):
    given = {"problems": ((SMALL, tiny),), "devices": ("ideal", "zen4"), "seeds": (0, 8)}
    return gymnasium.make_vec("SparseTraining-v0", n, **{**given, **changes})


@pytest.mark.parametrize("mode", ["step", "density"])
def test_runs_side_by_side_are_those_of_single_environments(tiny, mode):
    made = [
        vector(tiny, 3, mode=mode),
        vector(tiny, 3, mode=mode, vectorization_mode="sync"),
    ]  # fmt: skip
    assert made[0].single_action_space == made[1].single_action_space
    assert made[0].observation_space == made[1].observation_space
    rng = np.random.default_rng(0)
    actions = [
        rng.integers(0, 3, (3, 16)) if mode == "step" else rng.uniform(0.1, 1, (3, 16))
        for _ in range(30)
    ]
    found = []
    for env in made:
        seen, info = env.reset(seed=5)
        assert env.observation_space.contains(seen)
        lines = [(seen, info["spent_s"])]
        for action in actions:
            seen, reward, over, _, info = env.step(action)
            drawn = info["context"]
            lines.append((seen, reward, over, info["spent_s"], drawn["device"], drawn["seed"]))
        assert any(line[2].any() for line in lines[1:])
        found.append(lines)
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            if isinstance(a, dict):
                assert all(np.allclose(a[k], b[k], atol=1e-4) for k in a)
            elif a.dtype.kind in "OU":
                assert a.tolist() == b.tolist()
            else:
                assert np.allclose(a, b, atol=1e-4)


def test_the_vector_form_refuses_what_the_single_one_refuses(tiny):
    env = vector(tiny, 2)
    with pytest.raises(InputError, match="call reset first"):
        env.step(np.ones((2, 16), int))
    env.reset(seed=[1, None], options={"device": "zen4"})
    with pytest.raises(InputError, match="value is 7 at layer 0"):
        env.step(np.full((2, 16), 7))
    with pytest.raises(InputError, match=r"shape is \(16,\); allowed is \(2, 16\)"):
        env.step(np.ones(16, int))
    with pytest.raises(InputError, match="seed: 3 are given"):
        env.reset(seed=[1, 2, 3])
    assert vector(tiny, 2, render_mode="ansi").render_mode == "ansi"


ONE = """
import sys
import numpy as np, torch
torch.set_num_threads(1)
import nettime.environment, gymnasium
env = gymnasium.make(
    "SparseTraining-v0", problems=(("mlp-1x8", "images"),), devices=("ideal",), seeds=(0, 8)
)
env.reset(seed=2)
rng = np.random.default_rng(0)
for _ in range(3):
    seen, reward, over, _, info = env.step(rng.integers(0, 3, 16))
    print(repr(reward), repr(info["loss"]), seen["layers"].sum())
"""


def test_two_processes_see_the_same(tiny):
    runs = [
        subprocess.run([sys.executable, "-c", ONE], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.count("\n") == 3
