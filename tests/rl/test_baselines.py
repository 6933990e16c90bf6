"""Opponents: each runs on every environment that offers what it needs, and the tuned ones tune."""

import pytest
import torch

from hwsim import InputError
from rl.baselines import OPPONENTS, Budget, Setup, everywhere, halving, make_opponent
from rl.envs.formula import WhiteBoxConfig
from rl.envs.interface import Context
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.envs.whitebox import WhiteBoxEnv
from rl.evaluate import greedy, play

REAL = ("set", "rigl", "static_erk", "narrower_dense")
TUNED = ("bandit", "best_constant", "best_schedule", "cma_es")
CONFIG = WhiteBoxConfig(decisions=8, budget=2.0)


def world(batch=16, seed=0, mode="density"):
    return WhiteBoxEnv(CONFIG, batch, seed=seed, mode=mode)


def budget(episodes, slots=16, seed=0):
    env = world(slots, seed)
    return Budget(lambda choose: play(env, choose).speed_up.log(), slots, episodes, seed=seed)


@pytest.mark.parametrize("mode", ["step", "density"])
@pytest.mark.parametrize("name", [n for n in OPPONENTS.names() if n not in REAL])
def test_every_opponent_finishes_its_episodes_in_the_white_box(name, mode):
    opponent = make_opponent(name)
    found = play(world(4, mode=mode), opponent.choose)
    assert torch.isfinite(found.time).all() and (found.time > 0).all()
    assert (found.density[:, found.live] >= CONFIG.min_density - 1e-6).all()


@pytest.mark.parametrize("name", OPPONENTS.names())
def test_every_opponent_finishes_its_episodes_in_real_training(name, tiny):
    opponent = make_opponent(name, Setup(density=0.25))
    config = TrainingConfig(
        problems=(("bert-1x8", tiny),), devices=("ideal",), budget=1.0, mode="density"
    )
    config, contexts = opponent.setting(config, [Context("bert-1x8", tiny, "ideal", 1.0, 1)])
    found = play(SparseTrainingEnv(config, 1), opponent.choose, contexts)
    assert torch.isfinite(found.time).all() and (found.time > 0).all()


@pytest.mark.parametrize("name", REAL)
def test_opponents_that_need_real_networks_say_so_in_the_white_box(name):
    with pytest.raises(InputError, match=r"no shapes|no networks"):
        play(world(2), make_opponent(name).choose)


def test_dense_has_a_speed_up_of_exactly_one():
    torch.testing.assert_close(play(world(8), make_opponent("dense").choose).time, torch.ones(8))


@pytest.mark.parametrize("name", ["linear", "quadratic", "cubic", "cosine"])
def test_schedules_fall_from_dense_to_their_density(name):
    found = play(world(4), make_opponent(name, Setup(density=0.1)).choose)
    density = found.density[:, found.live]
    assert (density.diff(dim=0) <= 1e-6).all()
    assert (density[0] > 0.5).all() and density.min() >= 0.1 - 1e-6


@pytest.mark.parametrize("name", TUNED)
def test_tuned_opponents_stay_within_their_budget_and_beat_dense(name):
    given = budget(64)
    opponent = make_opponent(name)
    assert opponent.tuned
    opponent.fit(given)
    assert 0 <= given.left < given.slots
    gained = play(world(256, seed=9), opponent.choose).speed_up.log().mean()
    assert gained > 0.1


def test_tuning_is_the_same_for_the_same_seed():
    for name in TUNED:
        found = []
        for _ in range(2):
            opponent = make_opponent(name)
            opponent.fit(budget(48, seed=5))
            found.append(torch.as_tensor(opponent.best))
        assert torch.equal(*found), name


def test_halving_finds_the_best_of_candidates_whose_scores_have_noise():
    noise = torch.Generator().manual_seed(0)
    held = {}

    def trial(choose):
        choose(_Fake(held), None)
        return -(held["own"][:, 0] - 0.3).abs() + 0.05 * torch.randn(8, generator=noise)

    class _Fake:
        def __init__(self, held):
            self.held = held

        def action_for(self, own):
            self.held["own"] = own
            return own

    found = halving(
        Budget(trial, 8, 160), torch.linspace(0.0, 1.0, 11)[:, None], lambda _, own: own
    )
    assert abs(float(found[0]) - 0.3) < 0.15


def test_greedy_by_the_interface_is_the_white_boxs_own_optimum():
    ours = play(world(128), make_opponent("hardware_greedy").choose).speed_up
    best = play(WhiteBoxEnv(CONFIG, 128), greedy).speed_up
    assert ours.mean() > 0.98 * best.mean()


def test_random_switching_changes_layers_as_often_as_told():
    opponent = make_opponent("random_switching", Setup(switching=0.2))
    assert play(world(256), opponent.choose).switching == pytest.approx(0.2, abs=0.02)


def test_a_budget_smaller_than_a_batch_is_refused():
    with pytest.raises(InputError, match="at least 16"):
        budget(8)


def test_a_spent_budget_scores_nothing():
    given = budget(16)
    given.score(torch.tensor([[0.5]]), lambda env, own: everywhere(env, own[:, 0]))
    with pytest.raises(InputError, match="0 episodes left"):
        given.score(torch.tensor([[0.5]]), lambda env, own: everywhere(env, own[:, 0]))


def test_an_unknown_opponent_lists_the_valid_ones():
    with pytest.raises(InputError, match="hardware_greedy"):
        make_opponent("hardware_gredy")


@pytest.mark.parametrize("settings", [{"density": 0.0}, {"density": 2.0}, {"switching": -1.0}])
def test_setups_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Setup(**settings)
