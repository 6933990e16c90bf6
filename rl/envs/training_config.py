"""The rules of episodes that are real training runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwsim import InputError
from hwsim.errors import unknown
from rl.envs.moves import FREE, MOVES
from rl.envs.slots import Topology
from rl.runs.prices import LEAST_DENSITY
from rl.runs.problems import Problem


@dataclass(frozen=True)
class TrainingConfig:
    """What episodes are drawn from, and their rules.

    Attributes:
        problems: (network, task) pairs, see `rl.runs.problems`; slot i has the one at i modulo
            their number.
        devices: what is drawn of, names or files for `hwsim.load_device`.
        targets: least and largest share of the dense run whose loss is to be reached.
        seeds: first of the seeds drawn, and the one after the last.
        decide_every: rounds (`Setting.round_steps` steps, one evaluation) between two decisions.
        budget: an episode ends after so many times the steps of the dense run to the target.
        mode: "step" or "density", see `rl.envs.interface`.
        factor: what a step of the action multiplies or divides the density by.
        points: where it is not 0, what a step of the action takes from the density or adds to it
            instead: 0.1 for ten points.
        min_density, max_density: ends of every layer's density. A run starts dense; its first
            decision brings every layer within them.
        capped_from: share of the run (its budget) before which layers may be denser than
            max_density.
        topology: how masks change.
        prefix: rounds that are dense before the first decision; they are branched from.
        hold: mode "density": a layer keeps its weights where the density that is named lies within
            this share of its own, since each move drops and regrows some; 1 (dense) is always
            carried out.
        moves: "free" carries out what is asked; "pays" leaves a layer alone where a move cannot
            bring what it costs, see `rl.envs.moves.paying`.
        reference: the dense runs that set target and time train at so many times the task's
            learning rate; 0 for the rate of the network under way.
        stop_at_target: False trains on to `budget` times the whole dense run, as studies do that
            compare the accuracy after equally many steps.
    """

    problems: tuple[tuple[str, str], ...] = (("bert-1x16", "mlm"), ("bert-1x24", "mlm"))
    devices: tuple[str, ...] = ("wafer", "zen4")
    targets: tuple[float, float] = (0.7, 1.0)
    seeds: tuple[int, int] = (0, 16)
    decide_every: int = 1
    budget: float = 2.5
    mode: str = "step"
    factor: float = 0.5
    points: float = 0.0
    min_density: float = 1 / 32
    max_density: float = 1.0
    capped_from: float = 0.0
    topology: Topology = field(default_factory=Topology)
    prefix: int = 0
    stop_at_target: bool = True
    hold: float = 0.0
    reference: float = 0.0
    moves: str = FREE

    def __post_init__(self) -> None:
        low, high = self.targets
        checks = {
            "problems": (self.problems, len(self.problems) > 0, "at least one (network, task)"),
            "devices": (self.devices, len(self.devices) > 0, "at least one device"),
            "targets": (self.targets, 0 < low <= high <= 1, "0 < least ≤ largest ≤ 1"),
            "seeds": (self.seeds, 0 <= self.seeds[0] < self.seeds[1], "0 ≤ first < end"),
            "decide_every": (self.decide_every, self.decide_every >= 1, "at least 1"),
            "budget": (self.budget, self.budget >= 1, "at least 1"),
            "factor": (self.factor, 0 < self.factor < 1, "above 0, below 1"),
            "points": (self.points, 0 <= self.points < 1, "0 or more, below 1"),
            "min_density": (
                self.min_density, LEAST_DENSITY <= self.min_density < self.max_density,
                f"at least {LEAST_DENSITY:g}, below {self.max_density:g} (the largest density)",
            ),
            "max_density": (self.max_density, self.max_density <= 1, "at most 1"),
            "capped_from": (self.capped_from, 0 <= self.capped_from < 1, "0 or more, below 1"),
            "prefix": (self.prefix, self.prefix >= 0, "at least 0"),
            "hold": (self.hold, self.hold >= 0, "at least 0"),
            "reference": (self.reference, self.reference >= 0, "at least 0"),
        }  # fmt: skip
        for name, (value, good, allowed) in checks.items():
            if not good:
                raise InputError(f"{name}: value is {value}; allowed is {allowed}")
        if self.moves not in MOVES:
            raise InputError(unknown("way to move", self.moves, MOVES))
        for network, task in self.problems:
            longest = Problem(network, task).setting.dense_rounds
            if self.prefix >= longest:
                raise InputError(
                    f"prefix: value is {self.prefix}; allowed is less than the {longest} rounds "
                    f"of the dense run on {task}"
                )
