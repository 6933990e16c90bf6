"""A training run as a formula: its best schedule is known, an episode takes microseconds.

A run has `layers` layers. Layer l has density d, a share c of the dense step's time, a sensitivity
s (Σs = 1) and an exponent α that grows as training goes on. In one interval of dense length δ the
run moves along its way to the target, p from 0 to 1, by

    dp = δ · Σ s·d^α(p)·(1 + γ·(1 − d))          α(p) = α₀·(1 + β·p)

and the interval takes the time

    dt = δ · (f + Σ c·φ(d))      φ(d) = min(1, ε + κ·d)

f is what no mask reduces; ε and κ are the overheads of a sparse kernel, so that a sparse layer
gains only below the crossover d < (1 − ε)/κ. γ is what moderate sparsity adds; drawn networks
have none (0), those fitted to real runs do (`rl.surrogate`). Early in training low densities cost
little progress, late in training they cost more; layers and devices differ. All of it is drawn
per episode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hwsim import InputError
from hwsim.checks import check_number


@dataclass(frozen=True)
class WhiteBoxConfig:
    """What episodes are drawn from.

    Attributes:
        layers: fewest and most layers of a network.
        decisions: intervals that the dense run needs to reach its target (δ = 1/decisions).
        budget: intervals after which an episode ends, in multiples of `decisions`.
        factor: a step of the action multiplies or divides the density by it.
        min_density: lower end of every layer's density; the upper end is 1.
        noise: standard deviation of the noise on observed log gradient norms.
    """

    layers: tuple[int, int] = (3, 6)
    decisions: int = 24
    budget: float = 3.0
    factor: float = 0.5
    min_density: float = 1 / 32
    noise: float = 0.05

    def __post_init__(self) -> None:
        low, high = self.layers
        if not 1 <= low <= high:
            raise InputError(f"layers: value is {self.layers}; allowed is 1 ≤ fewest ≤ most")
        check_number("decisions", self.decisions, least=1)
        check_number("min_density", self.min_density, above=0, below=1)
        check_number("factor", self.factor, above=0, below=1)
        check_number("budget", self.budget, least=1)

    @property
    def max_decisions(self) -> int:
        """Of an episode, its budget included."""
        return round(self.budget * self.decisions)


@dataclass(frozen=True)
class FormulaNetworks:
    """A batch of drawn networks on drawn devices; (batch, layers) unless said. `live` pads."""

    live: torch.Tensor
    cost: torch.Tensor
    sensitivity: torch.Tensor
    exponent: torch.Tensor
    hardening: torch.Tensor
    overhead: torch.Tensor
    slope: torch.Tensor
    boost: torch.Tensor
    fixed: torch.Tensor  # (batch,)

    def time(self, density: torch.Tensor) -> torch.Tensor:
        """Time of each layer as a share of the dense step, (batch, layers)."""
        return self.cost * torch.clamp(self.overhead + self.slope * density, max=1.0)

    def progress(self, density: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
        """Each layer's contribution to progress, (batch, layers); `done` is p, (batch,)."""
        exponent = self.exponent * (1.0 + self.hardening * done[:, None])
        lift = 1.0 + self.boost * (1.0 - density)
        return self.sensitivity * density.clamp(min=1e-9) ** exponent * lift

    def best_density(self, done: torch.Tensor, low: float, grid: int = 257) -> torch.Tensor:
        """The densities in [low, 1] with most progress per time at p = `done`.

        A ratio of sums, each term of one layer: Dinkelbach's iteration maximises
        progress − λ·time layer by layer and raises λ to the ratio reached, until it stands.

        Source: Dinkelbach (1967), "On nonlinear fractional programming".
        """
        batch, layers = self.live.shape
        candidates = torch.exp(torch.linspace(float(torch.tensor(low).log()), 0.0, grid))
        shape = (batch, layers, grid)
        times = torch.stack([self.time(c.expand(batch, layers)) for c in candidates], -1)
        gains = torch.stack([self.progress(c.expand(batch, layers), done) for c in candidates], -1)
        ratio = torch.zeros(batch)
        choice = torch.zeros(batch, layers, dtype=torch.long)
        for _ in range(50):
            choice = (gains - ratio[:, None, None] * times).argmax(-1)
            gain = torch.gather(gains, 2, choice[..., None]).squeeze(-1).sum(1)
            time = torch.gather(times, 2, choice[..., None]).squeeze(-1).sum(1) + self.fixed
            new = gain / time
            if torch.allclose(new, ratio, rtol=1e-7, atol=0.0):
                break
            ratio = new
        assert gains.shape == shape
        return candidates[choice]


def draw(config: WhiteBoxConfig, batch: int, rng: torch.Generator, width: int) -> FormulaNetworks:
    """`batch` networks, padded to `width` layers."""
    low, high = config.layers
    if width < high:
        raise InputError(f"width: value is {width}; allowed is at least {high}, the most layers")

    def uniform(a: float, b: float, *shape: int) -> torch.Tensor:
        return a + (b - a) * torch.rand(*shape, generator=rng)

    count = torch.randint(low, high + 1, (batch,), generator=rng)
    live = torch.arange(width)[None, :] < count[:, None]
    fixed = uniform(0.05, 0.25, batch)

    def shares(spread: float) -> torch.Tensor:
        raw = torch.exp(spread * torch.randn(batch, width, generator=rng)) * live
        return raw / raw.sum(1, keepdim=True)

    return FormulaNetworks(
        live=live,
        cost=shares(0.7) * (1.0 - fixed)[:, None],
        sensitivity=shares(0.7),
        exponent=uniform(0.05, 0.3, batch, width),
        hardening=uniform(0.5, 4.0, batch, width),
        # One device per episode, so one pair of overheads for all layers of a network.
        overhead=uniform(0.0, 0.1, batch, 1).expand(batch, width),
        slope=uniform(1.0, 2.5, batch, 1).expand(batch, width),
        boost=torch.zeros(batch, width),
        fixed=fixed,
    )
