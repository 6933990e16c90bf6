"""Real training of small networks as a batched TorchRL environment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from hwsim import InputError
from rl.envs import moves
from rl.envs.features import observe
from rl.envs.interface import Context, ScheduleEnv
from rl.envs.slots import Slots
from rl.envs.training_config import TrainingConfig
from rl.moment import Moment
from rl.rewards import make_reward
from rl.runs.dense import dense_runs
from rl.runs.prices import PricedSlots, prices
from rl.runs.problems import Problem, at_rate
from sparse_train.networks import PROGRESS

# Of each slot, float64 (batch,) unless said. Seconds are of the slot's device.
_NUMBERS = (
    "spent_s", "spent_flops", "loss", "first_loss", "target_loss", "accuracy", "progress",
    "dense_s", "dense_flops", "dense_rounds", "rounds", "most_rounds", "last_density", "reached",
    "failed",
)  # fmt: skip


class SparseTrainingEnv(ScheduleEnv):
    """`batch` real training runs side by side; see `rl.envs.interface` for what it offers.

    Slots of one problem are trained in its task's way. Validation data decides everything; test
    data is never read. A run ends when its validation loss is at or below its target (between two
    evaluations it falls in a straight line), when the budget is used up, or when its loss is no
    longer finite: then it is charged the whole budget and a dense run on top, a finite number.
    All of these are `terminated`: what is left is part of the reward. Who has used up the budget
    without reaching its target is charged a whole dense run on top: its own run led nowhere.
    """

    def __init__(
        self, config: TrainingConfig, batch: int, *, reward: str = "log_ratio", width: int = 0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        made_by = make_reward(reward)
        problems = [Problem(*pair) for pair in config.problems][:batch]
        groups = [
            Slots(problem, torch.arange(i, batch, len(problems)), config.topology)
            for i, problem in enumerate(problems)
        ]
        widest = max(group.layers for group in groups)
        if width and width < widest:
            raise InputError(
                f"width: value is {width}; allowed is at least {widest}, the most layers"
            )
        width = width or widest
        super().__init__(
            batch, width, mode=config.mode, factor=config.factor,
            min_density=config.min_density, seed=seed,
            max_density=1.0 if config.capped_from else config.max_density,
        )  # fmt: skip
        self.points = config.points
        self.config, self.reward_name, self.reward_function = config, reward, made_by
        self.groups = groups
        self._live = torch.zeros(batch, width, dtype=torch.bool)
        self.sizes = torch.ones(batch, width, dtype=torch.long)
        for group in self.groups:
            self._live[group.places, : group.layers] = True
            self.sizes[group.places, : group.layers] = group.networks.sizes
        self._contexts: list[Context | None] = [None] * batch
        self.state = {name: torch.zeros(batch, dtype=torch.float64) for name in _NUMBERS}
        self.first_gradient = torch.ones(batch, width, dtype=torch.float64)
        self.nnz = self.sizes.clone()
        self.decision_steps = torch.ones(batch, dtype=torch.float64)
        for group in self.groups:
            steps = group.problem.setting.round_steps * config.decide_every
            self.decision_steps[group.places] = steps
        self.priced = PricedSlots(batch, width)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as settings and `state_dict`: an equal one that goes on alike."""
        made = (self.config, self.batch_size[0], self.reward_name, self.width, self.state_dict())
        return _revived, made

    # What the interface offers.

    @property
    def live(self) -> Tensor:
        return self._live

    @property
    def density(self) -> Tensor:  # type: ignore[override]
        """(batch, width) active share of each layer."""
        return (self.nnz / self.sizes).float()

    @property
    def progress(self) -> Tensor:
        return self.state["progress"].float()

    @property
    def elapsed(self) -> Tensor:
        return (self.state["rounds"] / self.state["dense_rounds"]).float()

    @property
    def fixed_time(self) -> Tensor:  # type: ignore[override]
        """(batch,) share of the dense step that no density changes."""
        return (self.priced.fixed_s / self.priced.step_s).float()

    def layer_time(self, density: Tensor) -> Tensor:
        return (self.priced.layer_seconds(density) / self.priced.step_s[:, None]).float()

    def layer_progress(self, density: Tensor) -> Tensor:
        """Share of the gradient's mass that lies on the weights active at `density`."""
        counts = self._counts(density)
        return self.masses(torch.stack([counts, self.sizes], -1))[..., 0].float()

    @property
    def shapes(self) -> Sequence[tuple[tuple[int, int], ...]]:
        """(n_out, n_in) of each layer, by slot."""
        found: list[tuple[tuple[int, int], ...]] = [()] * self.batch_size[0]
        for group in self.groups:
            for place in group.places.tolist():
                found[place] = group.networks.shapes
        return found

    @property
    def contexts(self) -> Sequence[Context] | None:
        """What is trained in each slot."""
        return [c for c in self._contexts if c is not None] or None

    def evaluate(self, split: str = "test") -> dict[str, Tensor]:
        """The task's metrics of every network as it is now, for reports; (batch,) each.

        Nothing here is seen by agent or schedule.
        """
        found: dict[str, Tensor] = {}
        for group in self.groups:
            own = group.networks.evaluate(torch.arange(len(group.places)), split)
            for name in own.keys() - {PROGRESS}:
                rows = found.setdefault(name, torch.full(self.batch_size, math.nan))
                rows[group.places] = own[name].float()
        return found

    def masses(self, counts: Tensor) -> Tensor:
        """Σ|g| at `counts` (batch, width, c) over that of all weights of the network; 0 in padding.

        The last of the counts must be all weights.
        """
        found = torch.zeros(counts.shape, dtype=torch.float64)
        for group in self.groups:
            own = counts[group.places, : group.layers].contiguous()
            rows = torch.arange(len(group.places))
            found[group.places, : group.layers] = group.networks.gradient_masses(rows, own)
        return found / found[..., -1:].sum(1, keepdim=True).clamp(min=1e-30)

    def watched(self) -> Tensor:
        """Gradient norm, activation mean and variance of each layer, (3, batch, width); float64."""
        found = torch.ones(3, *self._live.shape, dtype=torch.float64)
        for group in self.groups:
            rows = torch.arange(len(group.places))
            norms = group.networks.gradient_norms(rows).double()
            seen = group.networks.activations.double()
            for i, value in enumerate((norms, seen[..., 0], seen[..., 1])):
                found[i, group.places, : group.layers] = value
        return found

    # Episodes.

    def _reset(
        self, tensordict: TensorDict | None = None, contexts: Sequence[Context] | None = None,
        **_: object,
    ) -> TensorDict:  # fmt: skip
        b = self.batch_size[0]
        which = torch.ones(b, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict:
            which = tensordict["_reset"].reshape(b)
        drawn = self._draw()
        if contexts is not None:
            if len(contexts) != b:
                raise InputError(f"contexts: {len(contexts)} are given; allowed is {b}, the batch")
            drawn = list(contexts)
        for group in self.groups:
            for row, place in enumerate(group.places.tolist()):
                if which[place]:
                    self._begin(group, row, place, drawn[place])
        return self._observation(torch.zeros(b, 1, dtype=torch.bool))

    def _draw(self) -> list[Context]:
        """A context for each slot; always as many random numbers, whichever slots are reset."""
        c, b = self.config, self.batch_size[0]
        device = torch.randint(len(c.devices), (b,), generator=self.rng).tolist()
        low, high = c.targets
        target = (low + (high - low) * torch.rand(b, generator=self.rng)).tolist()
        seed = torch.randint(*c.seeds, (b,), generator=self.rng).tolist()
        pairs = [c.problems[i % len(c.problems)] for i in range(b)]
        references = [at_rate(one, c.reference) if c.reference else "" for one, _ in pairs]
        return [
            Context(*pairs[i], c.devices[device[i]], min(target[i], 1.0), seed[i], references[i])
            for i in range(b)
        ]

    def _begin(self, group: Slots, row: int, place: int, context: Context) -> None:
        own = group.problem
        if (context.network, context.task) != (own.network, own.task):
            raise InputError(
                f"contexts: slot {place} is given {context.network} on {context.task}; allowed is "
                f"{own.network} on {own.task}"
            )
        reference = Problem(context.reference or own.network, own.task)
        run = dense_runs(reference).get(context.seed)
        target = run.target_loss(context.target)
        if not run.rounds_at(target) > 0:
            raise InputError(
                f"target: value is {context.target}; the dense {reference.network} has learnt "
                "nothing by then; allowed is a larger share of its run"
            )
        self._contexts[place] = context
        rounds = run.rounds_to(target)
        prefix = min(self.config.prefix, math.ceil(rounds) - 1)
        growing = self.config.topology.grow == "gradient"
        self.priced.set(place, prices(own, context.device, dense_gradient=growing))
        loss, accuracy = group.start(row, context.seed, prefix)
        self.nnz[place] = self.sizes[place]
        gradients = group.networks.gradient_norms(torch.tensor([row]))[0]
        self.first_gradient[place, : group.layers] = gradients
        steps, s = rounds * own.setting.round_steps, self.state
        dense = prices(reference, context.device, dense_gradient=growing)
        started = prefix * own.setting.round_steps
        whole = rounds if self.config.stop_at_target else own.setting.dense_rounds
        most = math.ceil(self.config.budget * whole)
        for name, value in (
            ("spent_s", started * float(self.priced.step_s[place])),
            ("spent_flops", started * float(self.priced.step_flops[place])),
            ("loss", loss), ("accuracy", accuracy), ("first_loss", float(run.losses[0])),
            ("target_loss", target),
            ("dense_s", steps * dense.dense_s), ("dense_flops", steps * dense.dense_flops),
            ("dense_rounds", rounds), ("rounds", prefix), ("most_rounds", most),
            ("last_density", 1.0),
            ("reached", 0.0), ("failed", 0.0),
        ):  # fmt: skip
            s[name][place] = value
        s["progress"][place] = self._progress_of(place, loss)

    def _progress_of(self, place: int, loss: float) -> float:
        """Share of the reference's dense way to the target at which it has this loss."""
        context = self._contexts[place]
        assert context is not None
        run = dense_runs(Problem(context.reference or context.network, context.task))
        curve = run.get(context.seed)
        ends = curve.rounds_at(np.array([loss, float(self.state["target_loss"][place])]))
        return float(np.clip(ends[0] / ends[1], 0.0, 1.0))

    def _step(self, tensordict: TensorDict) -> TensorDict:
        before = self._moment()
        wanted = self._wanted(self.checked(tensordict["action"]))
        for _ in range(self.config.decide_every):
            self._round(wanted)
        out = self._observation(self.over[:, None])
        out["reward"] = self.reward_function(before, self._moment()).float()[:, None]
        return out

    def _wanted(self, action: Tensor) -> Tensor:
        """Weights of each layer after the action; KEEP leaves the number itself."""
        c = self.config
        counts = moves.asked(self, action, self.mode, hold=c.hold)
        counts = torch.minimum(counts, self._most())
        if c.moves == moves.PAYS:
            counts = torch.where(
                moves.paying(self, counts, self._steps_left()), counts, self._kept()
            )
        return torch.where(self._live, counts, self.sizes)

    def _kept(self) -> Tensor:
        """The weights that there are, or as many as are allowed now; (batch, width)."""
        return torch.minimum(self.nnz, self._most())

    def _steps_left(self) -> Tensor:
        """(batch,) that dense training would need from here, at least those of a decision."""
        s, each = self.state, self.decision_steps / self.config.decide_every
        left = (1.0 - s["progress"]) * s["dense_rounds"] * each
        if not self.config.stop_at_target:
            left = (s["most_rounds"] - s["rounds"]) * each
        return torch.maximum(left, self.decision_steps)

    def _counts(self, density: Tensor) -> Tensor:
        """Whole numbers of weights between the least density, at least 1, and the largest."""
        return torch.minimum(moves.bounded(self, density), self._most())

    def _most(self) -> Tensor:
        """Weights of each layer at the largest density that is allowed now, (batch, width)."""
        c, s = self.config, self.state
        most = torch.floor(self.sizes * c.max_density).long().clamp(min=1)
        capped = s["rounds"] >= c.capped_from * s["most_rounds"]
        return torch.where(capped[:, None], most, self.sizes)

    @property
    def over(self) -> Tensor:
        """(batch,) runs that have ended."""
        s = self.state
        over = (s["failed"] > 0) | (s["rounds"] >= s["most_rounds"])
        return over | (s["reached"] > 0) if self.config.stop_at_target else over

    @property
    def _left(self) -> Tensor:
        """(batch,) dense time to the target from the present loss, over that of the dense run."""
        left = 1.0 - self.state["progress"]
        missed = self.over & (self.state["reached"] == 0) & self.config.stop_at_target
        return torch.where(missed, torch.ones_like(left), left)

    def _round(self, wanted: Tensor) -> None:
        over = self.over
        for group in self.groups:
            rows = torch.nonzero(~over[group.places])[:, 0]
            if len(rows):
                places = group.places[rows]
                nnz = wanted[places, : group.layers]
                losses, accuracies, updated = group.round(rows, nnz)
                self.nnz[places] = wanted[places]
                self.state["accuracy"][places] = accuracies
                self._account(group, places, losses, updated)

    def _account(self, group: Slots, places: Tensor, losses: Tensor, updated: Tensor) -> None:
        """What a round of slots `places` cost, and where it led."""
        s, steps = self.state, group.problem.setting.round_steps
        seconds, flops = self.priced.round(places, self.nnz[places] / self.sizes[places], steps,
                                           updated)  # fmt: skip
        s["last_density"][places] = flops / (steps * self.priced.step_flops[places])
        before, target = s["loss"][places], s["target_loss"][places]
        failed = ~torch.isfinite(losses)
        reached = ~failed & (losses <= target)
        # The target lies within the round: only its first part is charged.
        part = ((before - target) / (before - losses)).clamp(0.0, 1.0)
        part = torch.where(reached & self.config.stop_at_target, part, 1.0)
        s["spent_s"][places] += part * seconds
        s["spent_flops"][places] += part * flops
        s["rounds"][places] += part
        s["loss"][places] = torch.where(failed, before, losses)
        s["reached"][places], s["failed"][places] = reached.double(), failed.double()
        for place, ended, lost in zip(places.tolist(), reached, failed, strict=True):
            loss = float(s["loss"][place])
            s["progress"][place] = 1.0 if ended else 0.0 if lost else self._progress_of(place, loss)
        for spent, whole in (("spent_s", "dense_s"), ("spent_flops", "dense_flops")):
            charged = torch.maximum(s[spent], self.config.budget * s[whole])
            s[spent] = torch.where(s["failed"] > 0, charged, s[spent])

    def _moment(self) -> Moment:
        s = {name: value.clone() for name, value in self.state.items()}
        known = torch.isfinite(s["accuracy"])
        accuracy = torch.where(known, s["accuracy"], s["progress"])
        return Moment(
            spent_s=s["spent_s"], remaining_s=self._left * s["dense_s"],
            dense_s=s["dense_s"], spent_flops=s["spent_flops"], dense_flops=s["dense_flops"],
            step_density=s["last_density"], accuracy=accuracy,
        )  # fmt: skip

    def _observation(self, over: Tensor) -> TensorDict:
        s = self.state
        time = s["spent_s"] / s["dense_s"] + self._left
        layers, whole = observe(self, time)
        return TensorDict(
            {
                "layers": layers, "whole": whole, "live": self._live.clone(),
                "density": self.density, "time": time.float()[:, None],
                "done": over, "terminated": over.clone(), "truncated": torch.zeros_like(over),
            },
            batch_size=self.batch_size,
        )  # fmt: skip

    # Going on later.

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        return {
            "stream": self.rng.get_state(),
            "contexts": [c and dataclasses.asdict(c) for c in self._contexts],
            "numbers": {name: value.clone() for name, value in self.state.items()},
            "first_gradient": self.first_gradient.clone(),
            "nnz": self.nnz.clone(),
            "groups": [group.state_dict() for group in self.groups],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:  # type: ignore[override]
        if len(state["groups"]) != len(self.groups) or state["nnz"].shape != self.nnz.shape:
            raise InputError(
                f"state of the environment: {len(state['groups'])} problems, slots and layers "
                f"{tuple(state['nnz'].shape)}; allowed is {len(self.groups)}, "
                f"{tuple(self.nnz.shape)}"
            )
        self.rng.set_state(state["stream"])
        self._contexts = [c and Context(**c) for c in state["contexts"]]
        self.state = {name: value.clone() for name, value in state["numbers"].items()}
        self.first_gradient, self.nnz = state["first_gradient"].clone(), state["nnz"].clone()
        growing = self.config.topology.grow == "gradient"
        for group, saved in zip(self.groups, state["groups"], strict=True):
            group.load_state_dict(saved)
            for place in group.places.tolist():
                context = self._contexts[place]
                if context is not None:
                    table = prices(group.problem, context.device, dense_gradient=growing)
                    self.priced.set(place, table)


def _revived(
    config: TrainingConfig, batch: int, reward: str, width: int, state: dict[str, Any]
) -> SparseTrainingEnv:
    env = SparseTrainingEnv(config, batch, reward=reward, width=width)
    env.load_state_dict(state)
    return env
