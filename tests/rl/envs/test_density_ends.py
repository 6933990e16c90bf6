"""A largest density below 1: no layer passes it, whatever is asked."""

from __future__ import annotations

import pytest
import torch

from hwsim import InputError
from rl.envs.act import DENSIFY, KEEP, SPARSIFY
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig

SMALL = {"problems": (("mlp-1x8", "images"),), "devices": ("wafer",)}


@pytest.mark.parametrize("action", [SPARSIFY, KEEP, DENSIFY])
def test_the_first_decision_brings_every_layer_within_the_ends(action):
    env = SparseTrainingEnv(TrainingConfig(**SMALL, max_density=0.3, min_density=0.1), 2)
    seen = env.reset()
    for _ in range(3):
        seen["action"] = torch.full(env.density.shape, action)
        seen = env.step(seen)["next"]
        assert bool((env.density <= 0.3).all())
        assert bool((env.density >= 0.1).all())


def test_densities_that_are_asked_for_are_cut_to_the_ends():
    config = TrainingConfig(**SMALL, max_density=0.5, mode="density")
    env = SparseTrainingEnv(config, 2)
    seen = env.reset()
    seen["action"] = torch.ones(env.density.shape)
    env.step(seen)
    assert bool((env.density <= 0.5).all())
    assert float(env.density.min()) > 0.49
    assert float(env.action_for(torch.ones(env.density.shape)).max()) == 0.5


def test_a_largest_density_below_the_least_is_an_error():
    with pytest.raises(InputError, match=r"below 0\.02"):
        TrainingConfig(**SMALL, max_density=0.02)
    with pytest.raises(InputError, match=r"max_density: value is 1\.5; allowed is at most 1"):
        TrainingConfig(**SMALL, max_density=1.5)


def test_a_cap_that_starts_later_leaves_the_rounds_before_it_free():
    config = TrainingConfig(
        **SMALL, max_density=0.25, capped_from=0.5, budget=1.0, stop_at_target=False
    )
    env = SparseTrainingEnv(config, 2)
    seen = env.reset()
    densities = []
    while not bool(seen["done"].all()):
        seen["action"] = torch.full(env.density.shape, KEEP)
        seen = env.step(seen)["next"]
        densities.append(env.density.max().item())
    half = len(densities) // 2
    assert densities[:half] == [1.0] * half
    assert max(densities[half:]) <= 0.25
