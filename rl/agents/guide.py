"""A frozen agent as the density schedule of a full training run.

The agent learnt on small networks, many at once; here it decides for one network under
`sparse_train.trainer`: before each mask update it is shown the run as its environment would show
it, and what it asks for is the next budget of each layer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hwsim import InputError
from rl.agents import checkpoint
from rl.agents.guide_slot import DenseCurve, Slot
from rl.runs.prices import Prices, load, tabulate
from sparse_train.record import TrainingRecord
from sparse_train.tasks import Batch, Prepared
from sparse_train.workload import workload

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from sparse_train.masking.sparsifier import Sparsifier
    from sparse_train.runs.config import TrainConfig


@dataclass(frozen=True)
class Guide:
    """Which agent decides, and what it is told.

    Attributes:
        agent: a checkpoint of `rl.agents.checkpoint`.
        reference: folder of the dense run with the same seed and steps: its losses tell how far
            the run has come.
        device: that prices what the agent sees.
    """

    agent: Path
    reference: Path
    device: str

    def digest(self, data: str) -> str:
        """Of everything that decides a guided run on data of digest `data`."""
        content = hashlib.blake2b(self.agent.read_bytes(), digest_size=16).hexdigest()
        text = json.dumps([data, content, self.device])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Guided(Prepared):
    """A task whose runs are made sparse as an agent decides.

    The run's settings name the algorithm that drops and grows. The run starts at
    `initial_density`, and from the last mask update on no layer is denser than `density` and
    `distribution` have it, where a curve would end too. Above its least density the agent is
    free until then.
    """

    def __init__(self, task: Prepared, guide: Guide) -> None:
        self.task, self.guide = task, guide
        saved = checkpoint.load(guide.agent)
        self._agent, self._world = saved.restore(), saved.world
        self._digest = guide.digest(task.digest)
        self._slot: Slot | None = None
        # Of the class; an instance stands in for that of its own task.
        self.metric = task.metric  # type: ignore[misc]
        self.lower_is_better = task.lower_is_better  # type: ignore[misc]

    @property
    def digest(self) -> str:
        return self._digest

    def describe(self) -> dict[str, Any]:
        guide = {"device": self.guide.device, "algorithm": self._agent.name}
        return {**self.task.describe(), "digest": self.digest, "agent": guide}

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        return self.task.build_model(model, preset, options)

    def build_for(self, config: TrainConfig) -> nn.Module:
        return self.task.build_for(config)

    def priced_model(self, model: nn.Module) -> nn.Module:
        return self.task.priced_model(model)

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        return self.task.batch(step, batch_size, seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.task.loss(model, batch)

    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        return self.task.evaluate(model, split)

    def make_sparsifier(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer
    ) -> Sparsifier | None:
        curve = dataclasses.replace(config, schedule="linear")  # What has the same two ends.
        sparsifier = self.task.make_sparsifier(curve, model, optimizer)
        if sparsifier is None or not hasattr(sparsifier, "plan"):
            raise InputError(
                f"algorithm: value is {config.algorithm!r}; allowed with an agent is one that "
                "drops and grows"
            )
        reference = _dense_curve(self.guide.reference, config)
        table = self._prices(config, model, sparsifier)
        w = self._world
        self._slot = Slot(
            self.task,
            config,
            sparsifier,
            reference,
            table,
            w.factor,
            w.min_density,
            w.points,
            w.hold,
            w.moves,
        )
        asked: Any = self._slot.asked
        sparsifier.plan = dataclasses.replace(sparsifier.plan, schedule=asked)
        return sparsifier

    def _prices(self, config: TrainConfig, model: nn.Module, sparsifier: Sparsifier) -> Prices:
        batch = self.task.batch(1, config.batch_size, config.seed)
        step = workload(self.task.priced_model(model), batch, optimizer=config.priced_optimizer)
        for name in sparsifier.layers:
            if name not in step.layers:
                raise InputError(
                    f"layers: {name!r} does no work in a step; allowed with an agent are layers "
                    "that the model uses"
                )
        growing = sparsifier.needs_dense_gradient
        return tabulate(
            step, tuple(sparsifier.layers), load(self.guide.device), dense_gradient=growing
        )

    def before_step(self, step: int, model: nn.Module, sparsifier: Sparsifier | None) -> bool:
        assert self._slot is not None
        assert sparsifier is not None
        if step == 1 or sparsifier.is_update_step(step):
            seen = self._slot.look(step, model)
            if step > 1:
                self._slot.follow(self._agent.act(seen), self._world.mode)
        return self.task.before_step(step, model, sparsifier)

    def state_dict(self) -> dict[str, Any]:
        assert self._slot is not None
        return {"task": self.task.state_dict(), "slot": self._slot.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert self._slot is not None
        self.task.load_state_dict(state["task"])
        self._slot.load_state_dict(state["slot"])


def _dense_curve(folder: Path, config: TrainConfig) -> DenseCurve:
    record = TrainingRecord.load(folder)
    dense = record.config
    for name, mine, its in (
        ("seed", config.seed, dense.seed), ("steps", config.steps, record.steps),
        ("algorithm", "dense", dense.algorithm),
    ):  # fmt: skip
        if mine != its:
            raise InputError(
                f"reference {folder}: its {name} is {its!r}; allowed is {mine!r}, that of a "
                "complete dense run beside this one"
            )
    rows = record.evaluations
    return DenseCurve(rows["step"].to_numpy(), rows["loss"].to_numpy())
