"""What an agent learns or is judged in, as one record that a file can hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim import InputError
from hwsim.checks import check_number
from hwsim.errors import unknown
from rl.envs.formula import WhiteBoxConfig
from rl.envs.interface import MODES, ScheduleEnv
from rl.envs.slots import Topology
from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.envs.whitebox import WhiteBoxEnv

KINDS = ("training", "surrogate", "whitebox")


@dataclass(frozen=True)
class World:
    """An environment's settings.

    Attributes:
        kind: "training" trains networks, "surrogate" is the white box fitted to recorded runs of
            `problems`, "whitebox" draws formulas.
        slots: episodes side by side.
        shards: parts of the slots with random streams of their own, see `rl.rollouts`.
        problems, devices, targets, seeds: see `rl.envs.training_config.TrainingConfig`; targets
            only for "training".
        recording: folder of the surrogate's recordings.
        layers: fewest and most layers of a white-box network.
        reward: a name in `rl.rewards`.
        mode, factor, min_density, budget: see `rl.envs.interface` and the configurations.
        points, max_density, capped_from, drop, grow, drop_fraction, restore, stop_at_target,
            hold, reference, moves: of real training, see
            `rl.envs.training_config.TrainingConfig` and `rl.envs.slots.Topology`.
        decisions: of a dense run, white box and surrogate.
    """

    kind: str = "training"
    slots: int = 32
    problems: tuple[tuple[str, str], ...] = (("bert-1x16", "mlm"), ("bert-1x24", "mlm"))
    devices: tuple[str, ...] = ("wafer",)
    targets: tuple[float, float] = (0.7, 1.0)
    seeds: tuple[int, int] = (0, 16)
    recording: str = ""
    layers: tuple[int, int] = (3, 6)
    reward: str = "log_ratio"
    mode: str = "step"
    factor: float = 0.5
    min_density: float = 1 / 32
    budget: float = 2.5
    decisions: int = 24
    points: float = 0.0
    max_density: float = 1.0
    capped_from: float = 0.0
    drop: str = "magnitude"
    grow: str = "gradient"
    drop_fraction: float = 0.0
    restore: bool = False
    stop_at_target: bool = True
    hold: float = 0.0
    reference: float = 0.0
    moves: str = "free"
    shards: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(unknown("kind of environment", self.kind, KINDS))
        if self.mode not in MODES:
            raise InputError(unknown("action mode", self.mode, MODES))
        check_number("slots", self.slots, least=1)
        if self.shards < 1 or self.slots % self.shards:
            raise InputError(
                f"shards: value is {self.shards}; allowed is a divisor of the slots, {self.slots}"
            )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> World:
        """The record that `dataclasses.asdict` and JSON made of one."""
        valid = tuple(f.name for f in dataclasses.fields(cls))
        for name in content:
            if name not in valid:
                raise InputError(unknown("setting of the environment", name, valid))
        return cls(**{name: _tuples(value) for name, value in content.items()})

    def training(self, **changes: Any) -> TrainingConfig:
        """The rules of real training."""
        given: dict[str, Any] = {
            "problems": self.problems, "devices": self.devices, "targets": self.targets,
            "seeds": self.seeds, "budget": self.budget, "mode": self.mode, "factor": self.factor,
            "points": self.points,
            "min_density": self.min_density, "max_density": self.max_density,
            "capped_from": self.capped_from,
            "topology": Topology(self.drop, self.grow, self.drop_fraction, self.restore),
            "stop_at_target": self.stop_at_target, "hold": self.hold,
            "reference": self.reference, "moves": self.moves,
        }  # fmt: skip
        return TrainingConfig(**{**given, **changes})

    def formula(self) -> WhiteBoxConfig:
        """The rules of the white box."""
        return WhiteBoxConfig(
            layers=self.layers, decisions=self.decisions, budget=self.budget, factor=self.factor,
            min_density=self.min_density,
        )  # fmt: skip

    def make(self, seed: int) -> ScheduleEnv:
        """The environment, with its own random stream."""
        if self.kind == "training":
            return SparseTrainingEnv(self.training(), self.slots, reward=self.reward, seed=seed)
        if self.kind == "whitebox":
            return WhiteBoxEnv(
                self.formula(), self.slots, reward=self.reward, mode=self.mode, seed=seed
            )
        from rl.surrogate.recorded import source

        draw, width = source(self.problems, self.devices, Path(self.recording))
        return WhiteBoxEnv(
            self.formula(), self.slots, reward=self.reward, mode=self.mode, seed=seed,
            source=draw, width=max(width, self.layers[1]),
        )  # fmt: skip

    @property
    def blind(self) -> tuple[str, ...]:
        """Features that mean nothing here and must be hidden from what is to leave it."""
        if self.kind == "training":
            return ()
        return (
            "log_gradient", "log_gradient_to_mean", "activation_mean", "log_activation_variance",
            "loss_gap",
        )  # fmt: skip


def _tuples(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_tuples(v) for v in value)
    return value
