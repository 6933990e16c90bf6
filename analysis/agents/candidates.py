"""Who takes part beside the agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim import units
from rl.baselines import OPPONENTS, Opponent, Setup, make_opponent

# What the protocol asks for: constants, handcrafted schedules, a black-box search, and algorithms
# that move their masks at a fixed density.
PROTOCOL = ("best_constant", "best_schedule", "cma_es", "set", "rigl")
_WITHOUT_DENSITY = ("dense", "hardware_greedy", "random", "random_switching")


@dataclass(frozen=True)
class Tunable:
    """An opponent before it is tuned.

    Attributes:
        name: its label.
        opponent: a name in `rl.baselines`.
        densities: that it may choose from; one where there is nothing to choose.
        switching: see `rl.baselines.Setup`; only random switching hears of it.
    """

    name: str
    opponent: str
    densities: tuple[float, ...]
    switching: float = 0.3

    @property
    def tuned(self) -> bool:
        """Whether it spends episodes on more than rate and density."""
        return OPPONENTS.get(self.opponent).tuned

    def make(self, density: float) -> Opponent:
        """The opponent at one density."""
        return make_opponent(self.opponent, Setup(density=density, switching=self.switching))


def candidates(names: Sequence[str], densities: Sequence[float], *, real: bool) -> list[Tunable]:
    """Dense, narrower models where networks are trained, and the opponents asked for.

    Args:
        names: of opponents; () for those of the protocol, in the white box for all.
        real: whether networks are trained.
    """
    made = [Tunable("dense", "dense", (1.0,))]
    if real:
        made += [Tunable(f"narrower {units.percent(d)}", "narrower_dense", (d,)) for d in densities]
    wanted = names or (PROTOCOL if real else OPPONENTS.names())
    for name in wanted:
        if name == "dense" or (real and name == "narrower_dense"):
            continue
        single = OPPONENTS.get(name).tuned or name in _WITHOUT_DENSITY
        made.append(Tunable(name, name, tuple(densities[:1]) if single else tuple(densities)))
    return made
