"""`SparseTraining-v0`: the checkers of those who would use it, its options, its errors."""

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
