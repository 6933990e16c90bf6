"""A training run in memory: one step after the other, nothing written."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from hwsim.errors import InputError
from sparse_train.compute.sparse_linear import SparseCompute
from sparse_train.masking.figures import Explored
from sparse_train.masking.sparsifier import Sparsifier
from sparse_train.runs.calendar import check_layers
from sparse_train.runs.clock import working_s
from sparse_train.runs.config import TrainConfig
from sparse_train.runs.rewind import Rewind
from sparse_train.tasks import Prepared


class Diverged(InputError):
    """The loss became NaN or infinite. The record up to that step is kept."""


class Run:
    """A run in memory: model, optimizer, masks, and the rows recorded so far.

    Everything random comes from the config's seed; torch's own random state is used only inside
    `private_randomness`, which gives it back as it was.
    """

    def __init__(self, config: TrainConfig, task: Prepared) -> None:
        self.config = config
        self.task = task
        self.model = task.build_for(config)
        self.optimizer = make_optimizer(config, self.model)
        self.sparsifier = task.make_sparsifier(config, self.model, self.optimizer)
        if self.sparsifier is not None:
            check_layers(self.sparsifier.algorithm, self.sparsifier.plan)
        self.compute: dict[str, Any] = {}
        if config.compute == "sparse" and self.sparsifier is not None:
            kernels = SparseCompute(self.sparsifier, config.threads)
            dense = kernels.dense_layers()
            layers = [name for name in kernels.layers if name not in dense]
            self.compute = {"sparse": layers, "dense": dense}
        self._rated = _by_density(config, self.optimizer, self.sparsifier)
        self.rewind = _rewind(config, self.model, self.optimizer, self.sparsifier)
        self._warm = False
        self._parameters = list(self.model.parameters())
        self.model.train()
        self.step = 0
        self.elapsed_s = 0.0
        self.metrics: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.densities: list[dict[str, Any]] = []
        self.explored = Explored()

    @property
    def mask_version(self) -> int:
        """Of the masks in force; 0 without any."""
        return 0 if self.sparsifier is None else self.sparsifier.version

    def before_step(self) -> bool:
        """Lets the task prepare the next step; whether it changed the masks."""
        started = working_s()
        changed = self.task.before_step(self.step + 1, self.model, self.sparsifier)
        self.elapsed_s += working_s() - started
        return changed

    def advance(self) -> tuple[float, bool]:
        """One training step, after `before_step`.

        Returns:
            the batch's loss, and whether a mask changed.

        Raises:
            Diverged: the loss is not finite; nothing was updated.
        """
        self.warm_up()
        started = working_s()
        config = self.config
        step = self.step + 1
        schedule = config if self.rewind is None else self.rewind
        rate = schedule.learning_rate_at(step)
        if self._rated and self.sparsifier is not None:
            masks = self.sparsifier.masks()
            for layer, group in self._rated.items():
                group["rate_factor"] = max(masks[layer].density, 1e-9) ** -config.rate_power
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        batch = self.task.batch(step, config.batch_size, config.seed)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.task.loss(self.model, batch)
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(
                f"loss: value is {value} in step {step} at learning rate {rate:g}; allowed is "
                "finite; try a lower learning_rate, a longer warm-up or clip_norm"
            )
        loss.backward()
        limit = math.inf if config.clip_norm is None else config.clip_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, limit, foreach=True).item()
        self.optimizer.step()
        updates = self.sparsifier is not None and self.sparsifier.is_update_step(step)
        changed = self.sparsifier.step() if self.sparsifier is not None else False
        if self.rewind is not None:
            self.rewind.after(step, changed)
        self.step = step
        self.elapsed_s += working_s() - started
        self.metrics.append(
            {
                "step": step, "loss": value, "learning_rate": rate, "gradient_norm": norm,
                "mask_update": updates, "elapsed_s": self.elapsed_s,
            }
        )  # fmt: skip
        return value, changed

    def warm_up(self) -> None:
        """Runs a step's forward and backward once for nothing, so that no kernel compiles later.

        Seconds of compilation are this process's, not the run's. Nothing of the run changes.
        """
        if self._warm or not self.compute:
            return
        self._warm = True
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with torch.random.fork_rng(devices=[]):
            batch = self.task.batch(self.step + 1, self.config.batch_size, self.config.seed)
            self.task.loss(self.model, batch).backward()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    def evaluate(self, split: str = "validation") -> dict[str, float]:
        """Metrics of a split, recorded."""
        found = self.task.evaluate(self.model, split)
        self.evaluations += [
            {"step": self.step, "split": split, "metric": name, "value": float(value)}
            for name, value in found.items()
        ]
        return found

    def note_masks(self) -> None:
        """Records the densities of the present mask version, which serves from the next step."""
        if self.sparsifier is None:
            return
        head = {"version": self.mask_version, "first_step": self.step + 1}
        masks = self.sparsifier.masks()
        self.explored.add(masks)
        self.densities += [
            {**head, "layer": n, "nnz": m.nnz, "size": m.size, "density": m.density}
            for n, m in masks.items()
        ]

    def figures(self) -> dict[str, float | int]:
        """Exploration, coverage and bytes of the masked layers; empty for a dense run."""
        if self.sparsifier is None:
            return {}
        return {**self.sparsifier.figures(), "explored": self.explored.rate}

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings only, for `torch.load(weights_only=True)`."""
        return {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparsifier": None if self.sparsifier is None else self.sparsifier.state_dict(),
            "task": self.task.state_dict(),
            "rewind": None if self.rewind is None else self.rewind.state_dict(),
            "torch_random": torch.get_rng_state(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on from `saved`; metrics and densities are the caller's to restore."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.sparsifier is not None:
            self.sparsifier.load_state_dict(saved["sparsifier"])
        self.task.load_state_dict(saved["task"])
        if self.rewind is not None:
            self.rewind.load_state_dict(saved["rewind"])
        torch.set_rng_state(saved["torch_random"])
        self.step = saved["step"]
        self.elapsed_s = saved["elapsed_s"]


def _by_density(
    config: TrainConfig, optimizer: Optimizer, sparsifier: Any
) -> dict[str, dict[str, Any]]:
    """Masked layer → its own parameter group, where rates follow densities."""
    if sparsifier is None or config.rate_power == 0:
        return {}
    if not isinstance(sparsifier, Sparsifier):
        raise InputError(
            f"rate_power: value is {config.rate_power:g}; allowed with a condensed layer is 0"
        )
    made = {}
    for name, layer in sparsifier.layers.items():
        weight = layer.parameter
        for group in list(optimizer.param_groups):
            if not any(one is weight for one in group["params"]):
                continue
            group["params"] = [one for one in group["params"] if one is not weight]
            settings = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group({**settings, "params": [weight]})
            made[name] = optimizer.param_groups[-1]
            break
    return made


def _rewind(
    config: TrainConfig, model: nn.Module, optimizer: Optimizer, sparsifier: Any
) -> Rewind | None:
    from sparse_train.algorithms.lottery import Lottery

    rule = getattr(sparsifier, "algorithm", None)
    if not isinstance(rule, Lottery):
        return None
    return Rewind(config, model, optimizer, sparsifier, rule.rewind_step)


def make_optimizer(config: TrainConfig, model: nn.Module) -> Optimizer:
    """AdamW or SGD with momentum, fused; weight decay only for weights of rank 2 and more."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.beta1, fused=True)
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


@contextlib.contextmanager
def private_randomness(seed: int) -> Iterator[None]:
    """torch's random state set from `seed`; at the end it is again what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
