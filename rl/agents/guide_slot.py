"""One full training run as an agent's observation shows it, and how far along it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from hwsim import InputError
from rl.envs import moves
from rl.envs.features import observe
from rl.runs.dense import DenseRun
from rl.runs.prices import PricedSlots, Prices
from sparse_train.masking.layers import MaskedLayer
from sparse_train.tasks import Prepared

if TYPE_CHECKING:
    from sparse_train.masking.sparsifier import Sparsifier
    from sparse_train.runs.config import TrainConfig


class DenseCurve:
    """The dense run's validation losses, to tell how far another run has come.

    Args:
        steps, losses: (evaluations,).
    """

    def __init__(self, steps: np.ndarray, losses: np.ndarray) -> None:
        self._steps = steps
        self._run = DenseRun(1, losses, np.full(len(losses), np.nan), ())
        self.target = self._run.target_loss(1.0)
        self.target_steps = self._at(self._run.rounds_to(self.target))
        self._target_smooth = self._at(float(self._run.rounds_at(self.target)))
        if not self._target_smooth > 0:
            raise InputError(
                f"reference: its validation loss goes from {losses[0]:g} to {losses[-1]:g}; "
                "allowed is a dense run that has learnt something"
            )

    def _at(self, rounds: float) -> float:
        return float(np.interp(rounds, np.arange(len(self._steps)), self._steps))

    def progress(self, loss: float) -> float:
        """Share of the dense way to the target at which it has this loss."""
        found = self._at(float(self._run.rounds_at(loss))) / self._target_smooth
        return min(max(found, 0.0), 1.0)


class Slot:
    """One full run as `rl.envs.features.Observed`: a batch of 1.

    Attributes:
        last: (1, layers) most weights of each layer from the last mask update on.
    """

    def __init__(
        self, task: Prepared, config: TrainConfig, sparsifier: Sparsifier, curve: DenseCurve,
        table: Prices, factor: float, min_density: float, points: float = 0.0,
        hold: float = 0.0, move: str = moves.FREE,
    ) -> None:  # fmt: skip
        self._task, self._config, self._curve = task, config, curve
        self._layers = tuple(sparsifier.layers.values())
        self.factor, self.points, self.hold, self.move = factor, points, hold, move
        self.min_density, self.max_density = min_density, 1.0
        self.sizes = torch.tensor([[layer.parameter.numel() for layer in self._layers]])
        self.nnz = self._active()
        self._plan = sparsifier.plan
        each = max(1, self._plan.update_interval)
        self.decision_steps = torch.tensor([each], dtype=torch.float64)
        budgets = self._plan.budgets(config.steps)
        self.last = torch.tensor([[budgets[layer.name] for layer in self._layers]])
        self._wanted = self.nnz.clone()
        self.first_gradient = torch.ones(self.nnz.shape, dtype=torch.float64)
        self.priced = PricedSlots(1, len(self._layers))
        self.priced.set(0, table)
        names = ("spent_s", "rounds", "updates", "progress", "loss", "first_loss")
        self.state = {name: torch.zeros(1, dtype=torch.float64) for name in names}
        self.state["target_loss"] = torch.tensor([curve.target], dtype=torch.float64)
        self.state["dense_rounds"] = torch.tensor([curve.target_steps], dtype=torch.float64)
        self._gradients = torch.zeros(1, int(self.sizes.sum()))
        self._seen = torch.zeros(2, *self.nnz.shape, dtype=torch.float64)

    @property
    def live(self) -> Tensor:
        """(1, layers) bool: layers that exist, which all do."""
        return torch.ones(self.nnz.shape, dtype=torch.bool)

    def asked(self, _: float) -> dict[str, float]:
        """The schedule: layer → density that the agent asked for last."""
        shares = (self._wanted.double() / self.sizes)[0].tolist()
        return dict(zip((layer.name for layer in self._layers), shares, strict=True))

    def look(self, step: int, model: nn.Module) -> TensorDict:
        """The observation before step number `step`."""
        s = self.state
        self.nnz = self._active()
        made = step - 1 - int(s["rounds"])
        updated = (s["updates"] > 0)[:, None].expand(self.nnz.shape)
        seconds, _ = self.priced.round(
            torch.tensor([0]), self.nnz / self.sizes, made, updated
        )  # fmt: skip
        s["spent_s"] = s["spent_s"] + seconds
        s["rounds"] = s["rounds"] + made
        s["loss"][0] = self._task.evaluate(model, "validation")["loss"]
        s["progress"][0] = self._curve.progress(float(s["loss"]))
        self._differentiate(step, model)
        if step == 1:
            s["first_loss"] = s["loss"].clone()
            self.first_gradient = self._norms()
        dense_s = self.priced.step_s * s["dense_rounds"]
        time = s["spent_s"] / dense_s + 1.0 - s["progress"]
        layers, whole = observe(self, time)
        density = (self.nnz / self.sizes).float()
        return TensorDict(
            {
                "layers": layers, "whole": whole, "live": self.live, "density": density,
                "time": time.float()[:, None],
            },
            batch_size=[1],
        )  # fmt: skip

    def follow(self, action: Tensor, mode: str) -> None:
        """Takes over what the agent asks for, in the step that was looked at last."""
        self.state["updates"] += 1
        counts = moves.asked(self, action, mode, hold=self.hold)
        if self.move == moves.PAYS:
            left = self._config.steps - self.state["rounds"]
            pays = moves.paying(self, counts, torch.maximum(left, self.decision_steps))
            counts = torch.where(pays, counts, self.nnz)
        step = int(self.state["rounds"]) + 1
        most = self.last if self._plan.progress(step) >= 1 else self.sizes
        self._wanted = torch.minimum(counts, most)

    def _active(self) -> Tensor:
        return torch.tensor([[int(layer.mask.sum()) for layer in self._layers]])

    def _differentiate(self, step: int, model: nn.Module) -> None:
        """Gradients and activations on the step's batch; the model stays as it was."""
        batch = self._task.batch(step, self._config.batch_size, self._config.seed)
        notes: dict[str, Tensor] = {}
        handles = [
            layer.module.register_forward_hook(_noting(notes, layer)) for layer in self._layers
        ]
        training = model.training
        model.eval()  # No dropout, and no running statistics that move.
        try:
            loss = self._task.loss(model, batch)
            found = torch.autograd.grad(loss, [layer.parameter for layer in self._layers])
        finally:
            model.train(training)
            for handle in handles:
                handle.remove()
        self._gradients = torch.cat([g.reshape(-1) for g in found])[None].float()
        seen = torch.stack([notes[layer.name] for layer in self._layers], 1)
        self._seen = seen[:, None].double()

    def _norms(self) -> Tensor:
        active = self._gradients * self._flat(lambda layer: layer.mask)
        parts = active[0].split(self.sizes[0].tolist())
        return torch.stack([part.square().sum().sqrt() for part in parts])[None].double()

    def _flat(self, of: Any) -> Tensor:
        return torch.cat([of(layer).detach().reshape(-1) for layer in self._layers])[None]

    def masses(self, counts: Tensor) -> Tensor:
        """See `rl.envs.features.Observed`."""
        from sparse_train.population.passes import gradient_masses

        ends = self.sizes[0].cumsum(0)
        found = torch.from_numpy(
            gradient_masses(
                np.array([0]),
                np.nan_to_num(self._flat(lambda layer: layer.parameter.abs()).numpy()),
                np.nan_to_num(self._gradients.abs().numpy()),
                self._flat(lambda layer: layer.mask.to(torch.uint8)).numpy(),
                (ends - self.sizes[0]).numpy(), ends.numpy(), counts.numpy(),
            )
        )  # fmt: skip
        return found / found[..., -1:].sum(1, keepdim=True).clamp(min=1e-30)

    def watched(self) -> Tensor:
        """See `rl.envs.features.Observed`."""
        return torch.cat([self._norms()[None], self._seen])

    def state_dict(self) -> dict[str, Any]:
        """All numbers that the next decision depends on."""
        return {
            "numbers": {name: value.clone() for name, value in self.state.items()},
            "wanted": self._wanted.clone(),
            "first_gradient": self.first_gradient.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.state = {name: value.clone() for name, value in state["numbers"].items()}
        self._wanted = state["wanted"].clone()
        self.first_gradient = state["first_gradient"].clone()


def _noting(notes: dict[str, Tensor], layer: MaskedLayer) -> Any:
    """A forward hook that keeps mean and variance of a layer's output."""

    def note(module: nn.Module, given: Any, output: Any) -> None:
        values = (output[0] if isinstance(output, tuple) else output).detach().double()
        notes[layer.name] = torch.stack([values.mean(), values.var(correction=0)])

    return note
