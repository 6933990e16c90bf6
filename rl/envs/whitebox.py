"""The white box as a batched TorchRL environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from rl.envs.act import step_density
from rl.envs.formula import FormulaNetworks, WhiteBoxConfig, draw
from rl.envs.interface import ScheduleEnv
from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES, log_share, stack
from rl.moment import Moment
from rl.rewards import make_reward

Draw = Callable[[WhiteBoxConfig, int, torch.Generator, int], FormulaNetworks]
_COUNTERS = ("done", "spent", "flops", "decisions", "density", "last_density")


class WhiteBoxEnv(ScheduleEnv):
    """`batch` training runs by formula; every reset draws a network and a device.

    What it offers is in `rl.envs.interface`. Time is in units of the dense run. An episode ends
    when the target is reached or the budget of decisions is used up; the latter is `terminated`
    too, since the agent sees its progress and the reward charges what is left. Losses,
    gradients and activations are not part of the formula: their features are 0.

    Args:
        source: what networks are drawn by; `rl.envs.formula.draw`, or that of a fitted surrogate.
    """

    def __init__(
        self, config: WhiteBoxConfig, batch: int, *, reward: str = "log_ratio", width: int = 0,
        mode: str = "step", seed: int = 0, source: Draw = draw,
    ) -> None:  # fmt: skip
        super().__init__(
            batch, width or config.layers[1], mode=mode, factor=config.factor,
            min_density=config.min_density, seed=seed,
        )  # fmt: skip
        self.config = config
        self.source = source
        self.reward_function = make_reward(reward)

    @property
    def live(self) -> Tensor:
        return self.networks.live

    @property
    def progress(self) -> Tensor:
        return self.done

    @property
    def elapsed(self) -> Tensor:
        return self.decisions / self.config.decisions

    @property
    def fixed_time(self) -> Tensor:  # type: ignore[override]
        """(batch,) share of the dense step that no density changes."""
        return self.networks.fixed

    def layer_time(self, density: Tensor) -> Tensor:
        return self.networks.time(density)

    def layer_progress(self, density: Tensor) -> Tensor:
        return self.networks.progress(density, self.done)

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        return {
            "stream": self.rng.get_state(),
            "networks": dict(vars(self.networks)) if hasattr(self, "networks") else {},
            "counters": {name: getattr(self, name).clone() for name in _COUNTERS}
            if hasattr(self, "networks")
            else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:  # type: ignore[override]
        self.rng.set_state(state["stream"])
        if state["networks"]:
            self.networks = FormulaNetworks(**state["networks"])
            for name in _COUNTERS:
                setattr(self, name, state["counters"][name].clone())

    def _reset(self, tensordict: TensorDict | None = None, **_: object) -> TensorDict:
        b, w = self.batch_size[0], self.width
        fresh = self.source(self.config, b, self.rng, w)
        which = torch.ones(b, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict:
            which = tensordict["_reset"].reshape(b)
        if not hasattr(self, "networks") or bool(which.all()):
            self.networks = fresh
            self.done = torch.zeros(b)
            self.spent = torch.zeros(b)
            self.flops = torch.zeros(b)
            self.decisions = torch.zeros(b, dtype=torch.long)
            self.density = torch.ones(b, w)
            self.last_density = torch.ones(b)
        else:
            self.networks = FormulaNetworks(
                **{
                    name: torch.where(which.reshape(b, *[1] * (new.ndim - 1)), new, old)
                    for name, new in vars(fresh).items()
                    for old in [getattr(self.networks, name)]
                }
            )
            for name, start in (("done", 0), ("spent", 0), ("flops", 0), ("decisions", 0)):
                getattr(self, name)[which] = start
            self.density[which] = 1.0
            self.last_density[which] = 1.0
        return self._observation(torch.zeros(b, 1, dtype=torch.bool))

    def _step(self, tensordict: TensorDict) -> TensorDict:
        c, net = self.config, self.networks
        before = self._moment()
        action = self.checked(tensordict["action"])
        if self.mode == "step":
            moved = step_density(self.density, action, c.factor, c.min_density)
        else:
            moved = torch.where(net.live, action, self.density)
        self.density = moved
        interval = 1.0 / c.decisions
        gain = interval * net.progress(self.density, self.done).sum(1)
        # The target may lie within the interval: then only its first part is run.
        part = ((1.0 - self.done) / gain).clamp(max=1.0)
        self.spent = self.spent + part * interval * (net.fixed + net.time(self.density).sum(1))
        self.last_density = net.fixed + (net.cost * self.density).sum(1)
        self.flops = self.flops + part * interval * self.last_density
        self.done = torch.where(part < 1.0, 1.0, (self.done + gain).clamp(max=1.0))
        self.decisions = self.decisions + 1
        over = (self.done >= 1.0) | (self.decisions >= c.max_decisions)
        out = self._observation(over[:, None])
        out["reward"] = self.reward_function(before, self._moment())[:, None]
        return out

    def _moment(self) -> Moment:
        one = torch.ones_like(self.spent)
        return Moment(
            spent_s=self.spent, remaining_s=1.0 - self.done, dense_s=one,
            spent_flops=self.flops, dense_flops=one, step_density=self.last_density,
            accuracy=self.done,
        )  # fmt: skip

    def _observation(self, over: Tensor) -> TensorDict:
        c, net, d = self.config, self.networks, self.density
        lower = (d * c.factor).clamp(min=c.min_density)
        upper = (d / c.factor).clamp(max=1.0)
        least = torch.full_like(d, c.min_density)
        time, gain = net.time(d), net.progress(d, self.done)
        step, pace = net.fixed + time.sum(1), gain.sum(1)
        # Progress is read off gradients in a real run, so what is seen of it is noisy.
        noise = torch.exp(c.noise * torch.randn(*gain.shape, generator=self.rng))
        most_saved = log_share((time - net.time(least)) / step[:, None])
        most_lost = log_share((gain - net.progress(least, self.done)) / pace[:, None] * noise)
        log_density = torch.log(d) / -torch.log(torch.tensor(c.min_density))
        layers = stack(
            LAYER_FEATURES,
            log_density=log_density,
            cost_share=log_share(time / step[:, None]),
            time_saved=log_share((time - net.time(lower)) / step[:, None]),
            time_added=log_share((net.time(upper) - time) / step[:, None]),
            progress_lost=log_share(
                (gain - net.progress(lower, self.done)) / pace[:, None] * noise
            ),
            progress_gained=log_share(
                (net.progress(upper, self.done) - gain) / pace[:, None] * noise
            ),
            time_over_progress=most_saved - most_lost,
        )
        live = net.live
        whole = stack(
            GLOBAL_FEATURES,
            done=self.done,
            log_time=torch.log(self.spent + 1.0 - self.done),
            fixed_share=net.fixed / step,
            mean_log_density=(log_density * live).sum(1) / live.sum(1),
            kernel_slope=net.slope[:, 0] / 2.5,
            elapsed=self.elapsed,
        )
        return TensorDict(
            {
                "layers": layers * live[..., None],
                "whole": whole,
                "live": live,
                "density": d,
                "time": (self.spent + 1.0 - self.done)[:, None],
                "done": over,
                "terminated": over,
                "truncated": torch.zeros_like(over),
            },
            batch_size=self.batch_size,
        )
