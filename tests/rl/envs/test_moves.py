"""Which moves are carried out: the cost of a move is seen, and may hold an agent still."""

import dataclasses

import pytest
import torch

from hwsim import InputError
from rl.envs import moves
from rl.envs.observe import FLOOR, LAYER_FEATURES
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.evaluate import play
from rl.worlds import World

CONFIG = TrainingConfig(
    problems=(("mlp-1x16", "images"),), devices=("wafer",), mode="density", seeds=(0, 2)
)
COST = LAYER_FEATURES.index("move_cost")


def environment(**changes) -> SparseTrainingEnv:
    env = SparseTrainingEnv(dataclasses.replace(CONFIG, **changes), 2)
    env.reset()
    return env


def test_the_cost_of_a_move_is_seen_as_a_share_of_the_time_between_decisions():
    env = environment()
    share = env.priced.update_seconds(env.nnz / env.sizes) / (
        10 * (env.priced.fixed_s + env.priced.layer_seconds(env.nnz / env.sizes).sum(1))[:, None]
    )
    seen = env.step(env.rand_step(env.reset()).set("action", torch.ones(2, env.width)))
    wanted = 1 - share.clamp(min=FLOOR).log() / torch.log(torch.tensor(FLOOR))
    assert torch.allclose(seen["next", "layers"][..., COST].double() + 1, wanted, atol=1e-5)


def test_a_cheaper_update_is_seen_as_cheaper():
    env = environment()
    before = env.reset()["layers"][..., COST].clone()
    env.priced.update_s /= 10
    env.first_gradient.fill_(1.0)
    after = env._observation(env.over[:, None])["layers"][..., COST]
    assert (after <= before).all()
    assert (after < before).any()


def test_a_move_that_can_save_more_than_it_costs_is_made():
    env = environment(moves=moves.PAYS)
    env.priced.update_s.zero_()
    seen = env.step(env.rand_step(env.reset()).set("action", torch.full((2, env.width), 0.25)))
    assert (seen["next", "density"] < 1).any()


def test_a_move_that_costs_more_than_the_rest_of_the_run_is_not_made():
    env = environment(moves=moves.PAYS)
    start = env.reset()
    env.priced.update_s.fill_(1e6)
    seen = env.step(env.rand_step(start).set("action", torch.full((2, env.width), 0.25)))
    assert (seen["next", "density"] == 1).all()
    free = environment()
    start = free.reset()
    free.priced.update_s.fill_(1e6)
    seen = free.step(free.rand_step(start).set("action", torch.full((2, free.width), 0.25)))
    assert (seen["next", "density"] < 1).all()


def test_what_is_not_allowed_is_left_even_where_it_does_not_pay():
    env = environment(moves=moves.PAYS, max_density=0.5)
    start = env.reset()
    env.priced.update_s.fill_(1e6)
    seen = env.step(env.rand_step(start).set("action", torch.full((2, env.width), 0.25)))
    assert torch.allclose(seen["next", "density"], torch.tensor(0.5), atol=0.01)


def test_steps_pay_or_are_left_too():
    env = environment(moves=moves.PAYS, mode="step")
    start = env.reset()
    env.priced.update_s.fill_(1e6)
    sparser = torch.zeros(2, env.width, dtype=torch.long)
    seen = env.step(env.rand_step(start).set("action", sparser))
    assert (seen["next", "density"] == 1).all()


def test_who_wobbles_moves_less_where_moves_must_pay():
    def wobble(env, _):
        low = (env.state["rounds"].long() % 2 == 0)[:, None]
        return torch.where(low, 0.2, 0.22).expand(env.density.shape)

    free = play(environment(), wobble).switching
    held = play(environment(moves=moves.PAYS), wobble).switching
    assert held <= free


def test_an_unknown_way_to_move_is_refused():
    with pytest.raises(InputError, match=r"unknown way to move 'cheap' \(valid: free, pays\)"):
        TrainingConfig(moves="cheap")


def test_a_world_hands_it_on():
    assert World(moves="pays").training().moves == "pays"
