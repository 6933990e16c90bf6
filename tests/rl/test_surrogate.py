"""The fitted white box: it finds the formula that made the runs, and says how wrong it is."""

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from hwsim import InputError
from rl.envs.formula import WhiteBoxConfig
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.envs.whitebox import WhiteBoxEnv
from rl.evaluate import dense, greedy, speed_ups
from rl.runs.prices import GRID, Prices, prices
from rl.runs.problems import Problem
from rl.surrogate.fit import Recording, SurrogateRecipe, fit, fit_kernels, record, surrogate

ROUNDS, LAYERS = 20, 3


def made(runs=40, noise=0.0, seed=0, boost=0.0):
    """Runs of the formula itself: the first layer matters most."""
    rng = np.random.default_rng(seed)
    sensitivity, exponent = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.1, 0.05])
    density = np.exp(rng.uniform(np.log(1 / 32), 0, (runs, 5, LAYERS)))
    density = np.repeat(density, ROUNDS // 5, axis=1)
    progress = np.zeros((runs, ROUNDS + 1))
    for k in range(ROUNDS):
        power = exponent * (1 + progress[:, k, None])
        lift = 1 + boost * (1 - density[:, k])
        gain = (sensitivity * density[:, k] ** power * lift).sum(1) / ROUNDS
        progress[:, k + 1] = np.minimum(1, progress[:, k] + gain)
    progress[:, 1:] += noise * rng.standard_normal((runs, ROUNDS))
    return Recording(density, progress, np.full(runs, float(ROUNDS)))


def table(overhead=0.1, slope=1.5):
    row = torch.from_numpy(np.minimum(1.0, overhead + slope * GRID)).expand(LAYERS, -1)
    flops = torch.ones(LAYERS, dtype=torch.float64)
    return Prices(row.clone(), row * 0, 1.0, flops, 1.0)


def test_the_formula_that_made_the_runs_is_found():
    fitted = fit(made())
    assert fitted.error.held_out < 0.01
    assert fitted.error.held_out < 0.2 * fitted.error.one_rate < fitted.error.as_dense
    assert np.argmax(fitted.sensitivity) == 0
    assert fitted.sensitivity.sum() == pytest.approx(1.0)


def test_that_moderate_sparsity_learns_faster_than_dense_is_found():
    fitted = fit(made(boost=0.6))
    assert fitted.error.held_out < 0.02 and fitted.error.explained > 0.95
    source = surrogate([(fitted, table(0.0, 1.0))])
    env = WhiteBoxEnv(WhiteBoxConfig(layers=(LAYERS, LAYERS)), 4, source=source)
    env.reset()
    here, dense_ones = torch.full_like(env.density, 0.8), torch.ones_like(env.density)
    assert (env.layer_progress(here).sum(1) > env.layer_progress(dense_ones).sum(1)).all()


def test_the_share_explained_is_measured_against_the_mean_of_each_round():
    assert fit(made()).error.explained > 0.98
    assert fit(made(noise=0.3)).error.explained < 0.6


def test_recorded_densities_reach_from_dense_to_sparsest_and_layers_differ():
    recipe = SurrogateRecipe((400, 3), float(np.log(1 / 32)), np.random.default_rng(0))
    found = np.stack([recipe.densities(np.full(400, x)) for x in (0.0, 0.5, 1.0)])
    assert (found >= 1 / 32 - 1e-9).all() and (found <= 1.0).all()
    means = np.exp(np.log(found).mean((0, 2)))
    assert (means > 0.7).mean() > 0.05 and (means < 0.06).mean() > 0.05
    assert (found.max(2) / found.min(2)).mean() > 2
    assert np.abs(np.log(found[2] / found[0])).mean() > 0.3


def test_noise_of_single_rounds_does_not_spoil_it():
    fitted = fit(made(noise=0.05, seed=1))
    assert fitted.error.held_out == pytest.approx(0.05, rel=0.25)


def test_held_out_runs_are_not_fitted():
    runs = made()
    order = np.random.default_rng(0).permutation(40)
    changed = runs.progress.copy()
    changed[order[:10]] = 0.0
    again = fit(Recording(runs.density, changed, runs.dense_rounds))
    first = fit(runs)
    assert np.array_equal(first.sensitivity, again.sensitivity)
    assert first.error.held_out != again.error.held_out


def test_kernels_of_the_white_boxes_own_form_are_found():
    found = fit_kernels(table(0.1, 1.5))
    np.testing.assert_allclose(found.overhead, 0.1, atol=0.01)
    np.testing.assert_allclose(found.slope, 1.5, atol=0.05)
    assert found.error < 0.02


def test_a_dense_layer_takes_its_dense_time_whatever_the_fit():
    found = fit_kernels(table(0.2, 0.1))
    assert (found.overhead + found.slope >= 1.0).all()


def test_the_surrogate_is_a_white_box():
    source = surrogate([(fit(made()), table()), (fit(made(seed=2)), table(0.0, 1.0))])
    config = WhiteBoxConfig(layers=(LAYERS, LAYERS))
    check_env_specs(WhiteBoxEnv(config, 4, width=5, source=source))
    times = 1 / speed_ups(WhiteBoxEnv(config, 16, source=source), dense)
    torch.testing.assert_close(times, torch.ones(16))
    assert speed_ups(WhiteBoxEnv(config, 16, source=source), greedy).mean() > 1.0


def test_real_runs_are_recorded_saved_and_fitted(tiny, tmp_path):
    problem = ("bert-1x8", tiny)
    config = TrainingConfig(problems=(problem,), devices=("ideal",), seeds=(0, 8), budget=2.0)
    runs = record(SparseTrainingEnv(config, 4), 6)
    assert runs.density.shape[0] == 6 and runs.density.shape[2] == 7
    ended = np.isfinite(runs.progress[:, 1:]).sum(1)
    assert (ended >= 1).all()
    runs.save(tmp_path / "runs.safetensors")
    again = Recording.load(tmp_path / "runs.safetensors")
    assert np.array_equal(again.progress, runs.progress, equal_nan=True)
    fitted = fit(again)
    assert np.isfinite(list(vars(fitted.error).values())).all()
    source = surrogate([(fitted, prices(Problem(*problem), "ideal"))])
    env = WhiteBoxEnv(WhiteBoxConfig(layers=(7, 7)), 2, source=source)
    assert env.reset()["live"].all()


def test_bad_input_is_named(tiny, tmp_path):
    runs = made(4)
    with pytest.raises(InputError, match=r"held_out: value is 0\.0 of 4 runs"):
        fit(runs, held_out=0.0)
    with pytest.raises(InputError, match="recording: shapes"):
        Recording(runs.density, runs.progress[:2], runs.dense_rounds)
    with pytest.raises(InputError, match="there is no such file"):
        Recording.load(tmp_path / "none")
    with pytest.raises(InputError, match="pairs: none"):
        surrogate([])
    source = surrogate([(fit(made()), table())])
    with pytest.raises(InputError, match="width: value is 2"):
        WhiteBoxEnv(WhiteBoxConfig(layers=(2, 2)), 2, source=source).reset()
    config = TrainingConfig(problems=(("bert-1x8", tiny), ("bert-2x8", tiny)))
    with pytest.raises(InputError, match="problems: 2 are given"):
        record(SparseTrainingEnv(config, 2), 2)
