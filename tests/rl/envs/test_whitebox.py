"""The white box: its formula, its known optimum, its TorchRL form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs.utils import check_env_specs

from hwsim import InputError
from rl.envs.act import DENSIFY, KEEP, SPARSIFY, step_density, toward
from rl.envs.formula import WhiteBoxConfig, draw
from rl.envs.whitebox import WhiteBoxEnv
from rl.evaluate import constant, dense, greedy, speed_ups

SEEDS = st.integers(0, 2**31)


def test_the_environment_keeps_torchrl_specs():
    # Raises on any key, shape or dtype that a rollout has and the specs do not say.
    check_env_specs(WhiteBoxEnv(WhiteBoxConfig(), 4, width=8))
    assert WhiteBoxEnv(WhiteBoxConfig(), 4, width=8).reset()["layers"].shape[:2] == (4, 8)


def test_a_dense_run_takes_the_dense_time():
    times = 1 / speed_ups(WhiteBoxEnv(WhiteBoxConfig(), 16), dense)
    torch.testing.assert_close(times, torch.ones(16))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.0, 1.0))
def test_no_density_has_more_progress_per_time_than_the_known_best(seed, done):
    rng = torch.Generator().manual_seed(seed)
    networks = draw(WhiteBoxConfig(), 8, rng, 6)
    at = torch.full((8,), done)

    def pace(density):
        return networks.progress(density, at).sum(1) / (
            networks.fixed + networks.time(density).sum(1)
        )

    best = pace(networks.best_density(at, 1 / 32))
    for _ in range(20):
        other = (1 / 32) ** torch.rand(8, 6, generator=rng)
        assert (pace(other) <= best * 1.01).all()  # 1 %: the optimum is searched on a grid


def test_the_known_optimum_beats_every_constant():
    config = WhiteBoxConfig()
    best = speed_ups(WhiteBoxEnv(config, 256, seed=3), greedy).mean()
    for density in (0.5, 0.25, 0.125, 0.0625):
        assert best > speed_ups(WhiteBoxEnv(config, 256, seed=3), constant(density)).mean()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_log_ratio_sums_to_the_log_of_the_speed_up(seed):
    env = WhiteBoxEnv(WhiteBoxConfig(decisions=6), 8, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    seen, total = env.reset(), torch.zeros(8)
    running = torch.ones(8, dtype=torch.bool)
    while running.any():
        seen["action"] = torch.randint(0, 3, env.density.shape, generator=rng)
        seen = env.step(seen)["next"]
        total += seen["reward"][:, 0] * running
        ended = running & seen["done"][:, 0]
        torch.testing.assert_close(
            total[ended], -torch.log(seen["time"][ended, 0]), atol=1e-5, rtol=0
        )
        running &= ~ended


def test_the_same_seed_gives_the_same_episode():
    a, b = (speed_ups(WhiteBoxEnv(WhiteBoxConfig(), 8, seed=5), greedy) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, speed_ups(WhiteBoxEnv(WhiteBoxConfig(), 8, seed=6), greedy))


@given(st.floats(0.05, 1.0), st.floats(0.1, 0.9))
def test_keep_changes_nothing_and_steps_stay_in_bounds(density, factor):
    d = torch.full((3,), density)
    moved = step_density(d, torch.tensor([SPARSIFY, KEEP, DENSIFY]), factor, 0.05)
    assert moved[1] == d[1]
    assert 0.05 <= moved[0] <= d[0] <= moved[2] <= 1.0


def test_toward_picks_the_nearest_step():
    density = torch.tensor([1.0, 0.25, 0.25])
    wanted = torch.tensor([0.1, 0.24, 1.0])
    assert toward(density, wanted, 0.5).tolist() == [SPARSIFY, KEEP, DENSIFY]


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"layers": (0, 3)}, "layers"),
        ({"layers": (4, 3)}, "layers"),
        ({"min_density": 0.0}, "min_density"),
        ({"factor": 1.0}, "factor"),
        ({"decisions": 0}, "decisions"),
        ({"budget": 0.5}, "budget"),
    ],
)
def test_bad_numbers_are_named(bad, named):
    with pytest.raises(InputError, match=named):
        WhiteBoxConfig(**bad)


def test_too_narrow_a_width_is_an_error():
    with pytest.raises(InputError, match="width: value is 4"):
        WhiteBoxEnv(WhiteBoxConfig(layers=(3, 6)), 2, width=4).reset()
