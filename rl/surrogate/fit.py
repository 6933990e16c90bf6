"""The white box fitted to recorded runs: a training study in milliseconds, with a known error.

A run's progress p goes, from round to round, by

    dp = 1/R · Σ s·d^(α·(1 + β·p))·(1 + γ·(1 − d))

(R dense rounds to the target, d the layers' densities; `rl.envs.formula`). s, α, β and γ of each
layer are fitted to whole recorded trajectories, not to single rounds: one evaluation's noise is as
large as a round's progress. γ lets a moderately sparse layer learn faster than a dense one, as
small networks do whose sparse layers have the larger learning rate. Time is fitted to a device's
price table by the white box's kernel formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from hwsim import InputError
from hwsim.checks import check_number
from hwsim.files import replacing
from rl.envs.formula import FormulaNetworks, WhiteBoxConfig
from rl.envs.training import SparseTrainingEnv
from rl.runs.prices import GRID, Prices
from sparse_train.data.tensor_files import read_arrays, write_arrays

_LEAST_EXPONENT = 1e-3
PULLS = (1e-3, 1e-4, 1e-5)


@dataclass(frozen=True)
class Recording:
    """Runs of one problem, one row each.

    Attributes:
        density: (runs, rounds, layers) in force during each round.
        progress: (runs, rounds + 1) before the first round and after each; NaN after the end.
        dense_rounds: (runs,) that the dense run takes to the target.
    """

    density: np.ndarray
    progress: np.ndarray
    dense_rounds: np.ndarray

    def __post_init__(self) -> None:
        runs, rounds, _ = self.density.shape
        if self.progress.shape != (runs, rounds + 1) or self.dense_rounds.shape != (runs,):
            raise InputError(
                f"recording: shapes are {self.density.shape}, {self.progress.shape}, "
                f"{self.dense_rounds.shape}; allowed is (runs, rounds, layers), "
                "(runs, rounds + 1), (runs,)"
            )

    def pick(self, runs: np.ndarray) -> Recording:
        """Some of the runs."""
        return Recording(self.density[runs], self.progress[runs], self.dense_rounds[runs])

    def save(self, path: Path) -> None:
        """Writes a safetensors file, whole or not at all."""
        with replacing(path) as part:
            write_arrays(vars(self), part)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Reads a file; an InputError if it is damaged."""
        try:
            return cls(**read_arrays(path, f"recording {path}")[0])
        except TypeError as error:
            raise InputError(f"recording {path}: cannot be read ({error})") from None


def record(env: SparseTrainingEnv, episodes: int, *, seed: int = 0) -> Recording:
    """Runs under densities of all kinds: every `Recipe` is drawn per run.

    All slots must have one problem. Slots that end wait for the others.
    """
    if len(env.groups) != 1:
        raise InputError(f"problems: {len(env.groups)} are given; allowed is one to be recorded")
    rng = np.random.default_rng(seed)
    parts = [_batch(env, rng) for _ in range(-(-episodes // env.batch_size[0]))]
    rounds = max(p.density.shape[1] for p in parts)
    wide = [_padded(p, rounds) for p in parts]
    return Recording(
        *(np.concatenate([getattr(p, name) for p in wide])[:episodes]
          for name in ("density", "progress", "dense_rounds"))
    )  # fmt: skip


class SurrogateRecipe:
    """Log densities of a batch of runs: a ramp of the whole network, layers that stand off it.

    What is drawn is spread evenly over what an agent may do: the level of the network where the
    run begins and where it ends, how far its layers differ, and how often each is drawn anew.
    """

    def __init__(self, shape: tuple[int, int], least: float, rng: np.random.Generator) -> None:
        runs, _ = shape
        self.shape, self.least, self.rng = shape, least, rng
        begin, end = rng.uniform(least, 0.0, (2, runs, 1))
        self.begin = begin
        self.end = np.where(rng.random((runs, 1)) < 0.5, begin, end)
        self.spread = rng.uniform(0.0, 1.0, (runs, 1))
        self.rate = rng.choice([0.0, 0.1], (runs, 1))
        self.offset = self._offsets()

    def _offsets(self) -> np.ndarray:
        return self.spread * self.rng.uniform(self.least, -self.least, self.shape) / 2

    def densities(self, elapsed: np.ndarray) -> np.ndarray:
        """(runs, layers) of the next round; `elapsed` (runs,) is the share of the run behind."""
        redrawn = self.rng.random(self.shape) < self.rate
        self.offset = np.where(redrawn, self._offsets(), self.offset)
        x = np.clip(elapsed, 0.0, 1.0)[:, None]
        level = self.begin + (self.end - self.begin) * x
        return np.exp(np.clip(level + self.offset, self.least, 0.0))


def _batch(env: SparseTrainingEnv, rng: np.random.Generator) -> Recording:
    """One episode of each slot."""
    seen = env.reset()
    b, width = env.density.shape
    recipe = SurrogateRecipe((b, width), float(np.log(env.min_density)), rng)
    running = np.ones(b, dtype=bool)
    densities, progress = [], [env.progress.numpy().astype(np.float64)]
    while running.any():
        wanted = recipe.densities(env.elapsed.numpy())
        seen["action"] = env.action_for(torch.from_numpy(wanted))
        seen = env.step(seen)["next"]
        densities.append(env.density.numpy().copy())
        progress.append(np.where(running, env.progress.numpy(), np.nan))
        running &= ~seen["done"][:, 0].numpy()
    kept = ~(env.state["failed"] > 0).numpy()
    return Recording(
        np.stack(densities, 1)[kept],
        np.stack(progress, 1)[kept],
        env.state["dense_rounds"].numpy()[kept] / env.config.decide_every,
    )


def _padded(part: Recording, rounds: int) -> Recording:
    more = rounds - part.density.shape[1]
    return Recording(
        np.pad(part.density, ((0, 0), (0, more), (0, 0)), constant_values=1.0),
        np.pad(part.progress, ((0, 0), (0, more)), constant_values=np.nan),
        part.dense_rounds,
    )


@dataclass(frozen=True)
class FitError:
    """How far predicted progress is from recorded progress, a root mean square over all rounds.

    Attributes:
        train, held_out: of the fit, on the runs it has seen and on those it has not.
        as_dense: of the guess that density changes nothing, on the held-out runs.
        one_rate: of the best single rate for all densities (fitted on the training runs), there.
        absolute: mean absolute error on the held-out runs.
        explained: R² there: the share of the variance of progress, around its mean at each round,
            that is predicted.
    """

    train: float
    held_out: float
    as_dense: float
    one_rate: float
    absolute: float
    explained: float


@dataclass(frozen=True)
class Fitted:
    """One problem's progress as a formula; (layers,) each."""

    sensitivity: np.ndarray
    exponent: np.ndarray
    hardening: np.ndarray
    boost: np.ndarray
    error: FitError


def fit(recording: Recording, *, held_out: float = 0.25, seed: int = 0) -> Fitted:
    """Least squares on trajectories, with a share of the runs held out.

    Args:
        held_out: share of the runs, drawn at random, that only the error is measured on.

    Raises:
        InputError: too few runs for both parts.
    """
    runs = len(recording.density)
    n_held = round(runs * held_out)
    if not 0 < n_held < runs:
        raise InputError(
            f"held_out: value is {held_out} of {runs} runs; allowed leaves runs on both sides"
        )
    order = np.random.default_rng(seed).permutation(runs)
    train, test = recording.pick(order[n_held:]), recording.pick(order[:n_held])
    best = _solve(train, _best_pull(train))
    rates = np.linspace(0.05, 1.5, 59)
    one = min(rates, key=lambda rate: float(_error(_walk_at(train, rate), train)))
    error = FitError(
        train=_root(_walk(train, *best), train),
        held_out=_root(_walk(test, *best), test),
        as_dense=_root(_walk_at(test, 1.0), test),
        one_rate=_root(_walk_at(test, one), test),
        absolute=_absolute(_walk(test, *best), test),
        explained=_explained(_walk(test, *best), test),
    )
    sensitivity, exponent, hardening, boost = (p.numpy() for p in best)
    return Fitted(sensitivity, exponent, hardening, boost, error)


def _best_pull(train: Recording) -> float:
    """Which of PULLS predicts a quarter of the training runs best from the others."""
    n = len(train.density) // 4
    if not n:
        return PULLS[0]
    inner, rest = (train.pick(np.arange(a, b)) for a, b in ((n, len(train.density)), (0, n)))
    return min(PULLS, key=lambda pull: float(_error(_walk(rest, *_solve(inner, pull)), rest)))


def _solve(runs: Recording, pull: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least squares; `pull` is the weight of staying at layers that are all alike.

    What the runs do not tell stays there: where noise is all there is, so does everything.
    """
    layers = runs.density.shape[2]
    first = torch.tensor([0.0, -2.0, 0.0, -3.0], dtype=torch.float64)
    start = first[:, None].expand(4, layers)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        raw = torch.tensor(flat.reshape(4, layers), requires_grad=True)
        stray = (raw - start).square().sum()
        value = _error(_walk(runs, *_parameters(raw)), runs) + pull * stray
        value.backward()
        assert raw.grad is not None
        return float(value.detach()), raw.grad.numpy().ravel()

    found = minimize(loss, start.numpy().ravel(), jac=True, method="L-BFGS-B",
                     options={"maxiter": 200})  # fmt: skip
    return _parameters(torch.tensor(found.x.reshape(4, layers)))


def _parameters(raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(sensitivity, exponent, hardening, boost) from numbers without bounds, (4, layers)."""
    softplus = torch.nn.functional.softplus
    return (
        torch.softmax(raw[0], 0), softplus(raw[1]) + _LEAST_EXPONENT, softplus(raw[2]),
        softplus(raw[3]),
    )  # fmt: skip


def _walk(
    runs: Recording, sensitivity: Tensor, exponent: Tensor, hardening: Tensor, boost: Tensor
) -> Tensor:
    """Predicted progress after each round, (runs, rounds)."""
    density = torch.from_numpy(runs.density).double()
    delta = 1.0 / torch.from_numpy(runs.dense_rounds)
    p = torch.from_numpy(runs.progress[:, 0])
    found = []
    for k in range(density.shape[1]):
        power = exponent * (1.0 + hardening * p[:, None])
        lift = 1.0 + boost * (1.0 - density[:, k])
        p = (p + delta * (sensitivity * density[:, k] ** power * lift).sum(1)).clamp(max=1.0)
        found.append(p)
    return torch.stack(found, 1)


def _walk_at(runs: Recording, rate: float) -> Tensor:
    """The same at one rate, whatever the densities."""
    rounds = (
        torch.arange(1, runs.density.shape[1] + 1) / torch.from_numpy(runs.dense_rounds)[:, None]
    )
    return (torch.from_numpy(runs.progress[:, :1]) + rate * rounds).clamp(max=1.0)


def _error(found: Tensor, runs: Recording) -> Tensor:
    """Mean squared error of progress over all rounds that were run."""
    wanted = torch.from_numpy(runs.progress[:, 1:])
    there = torch.isfinite(wanted)
    return (found - wanted)[there].square().mean()


def _root(found: Tensor, runs: Recording) -> float:
    return float(_error(found, runs).sqrt())


def _absolute(found: Tensor, runs: Recording) -> float:
    wanted = torch.from_numpy(runs.progress[:, 1:])
    return float((found - wanted)[torch.isfinite(wanted)].abs().mean())


def _explained(found: Tensor, runs: Recording) -> float:
    """R² against the mean progress of each round: that time passes is nothing to be explained."""
    wanted = torch.from_numpy(runs.progress[:, 1:])
    there = torch.isfinite(wanted)
    usual = wanted.nanmean(0).expand_as(wanted)
    left, whole = ((x - wanted)[there].square().sum() for x in (found, usual))
    return float(1.0 - left / whole)


@dataclass(frozen=True)
class KernelFit:
    """φ(d) = min(1, ε + κ·d) of each layer, (layers,), and its largest error on the table."""

    overhead: np.ndarray
    slope: np.ndarray
    error: float


def fit_kernels(prices: Prices) -> KernelFit:
    """Overhead ε and slope κ that come nearest to a price table, layer by layer."""
    overhead, slope, errors = [], [], []
    for row in prices.layer_s.numpy():
        wanted = row / row[-1]

        def miss(x: np.ndarray, wanted: np.ndarray = wanted) -> float:
            return float(np.square(np.minimum(1.0, x[0] + x[1] * GRID) - wanted).sum())

        tries = [
            minimize(miss, (e, k), method="Nelder-Mead", bounds=((0.0, 1.0), (0.0, 20.0)))
            for e, k in ((0.05, 1.0), (0.3, 2.0), (0.8, 0.3))
        ]
        e, k = min(tries, key=lambda t: t.fun).x
        k = max(k, 1.0 - e)  # a dense layer takes its dense time
        overhead.append(e)
        slope.append(k)
        errors.append(np.abs(np.minimum(1.0, e + k * GRID) - wanted).max())
    return KernelFit(np.array(overhead), np.array(slope), float(np.max(errors)))


def surrogate(
    pairs: Sequence[tuple[Fitted, Prices]],
) -> Callable[[WhiteBoxConfig, int, torch.Generator, int], FormulaNetworks]:
    """A source for `WhiteBoxEnv`: every episode draws one of the fitted networks and its device."""
    if not pairs:
        raise InputError("pairs: none is given; allowed is at least one (fit, prices)")
    made = [(fitted, prices, fit_kernels(prices)) for fitted, prices in pairs]

    def draw(
        config: WhiteBoxConfig, batch: int, rng: torch.Generator, width: int
    ) -> FormulaNetworks:
        widest = max(len(fitted.sensitivity) for fitted, _, _ in made)
        check_number("width", width, least=widest)
        chosen = torch.randint(len(made), (batch,), generator=rng).tolist()
        zero = {name: torch.zeros(batch, width) for name in FormulaNetworks.__dataclass_fields__}
        zero["live"] = torch.zeros(batch, width, dtype=torch.bool)
        zero["fixed"] = torch.zeros(batch)
        for row, i in enumerate(chosen):
            fitted, prices, kernels = made[i]
            n = len(fitted.sensitivity)
            zero["live"][row, :n] = True
            zero["fixed"][row] = prices.fixed_s / prices.dense_s
            for name, values in (
                ("cost", prices.layer_s[:, -1].numpy() / prices.dense_s),
                ("sensitivity", fitted.sensitivity), ("exponent", fitted.exponent),
                ("hardening", fitted.hardening), ("boost", fitted.boost),
                ("overhead", kernels.overhead), ("slope", kernels.slope),
            ):  # fmt: skip
                zero[name][row, :n] = torch.from_numpy(np.asarray(values)).float()
        return FormulaNetworks(**zero)

    return draw
