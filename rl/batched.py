"""The white box as a batched TorchRL environment."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from rl.act import step_density
from rl.moment import Moment
from rl.observe import GLOBAL_FEATURES, LAYER_FEATURES, log_share
from rl.rewards import REWARDS
from rl.whitebox import Networks, WhiteBoxConfig, draw


class WhiteBoxEnv(EnvBase):
    """`batch` training runs side by side; every reset draws a network and a device.

    Observation: `layers` (batch, width, F), `whole` (batch, G), `live` (batch, width).
    Action: (batch, width) in {sparsify, keep, densify}. Time is in units of the dense run.
    An episode ends when the target is reached or the budget of decisions is used up; the latter
    is `terminated` too, since the agent sees its progress and the reward charges what is left.
    """

    def __init__(
        self, config: WhiteBoxConfig, batch: int, *, reward: str = "log_ratio", width: int = 0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(batch_size=torch.Size([batch]))
        self.config = config
        self.width = width or config.layers[1]
        self.reward_function = REWARDS.get(reward)
        self.rng = torch.Generator().manual_seed(seed)
        b, w = batch, self.width
        self.observation_spec = Composite(
            layers=Unbounded((b, w, len(LAYER_FEATURES))),
            whole=Unbounded((b, len(GLOBAL_FEATURES))),
            live=Categorical(2, shape=(b, w), dtype=torch.bool),
            density=Bounded(0.0, 1.0, (b, w)),
            time=Unbounded((b, 1)),
            shape=(b,),
        )
        self.action_spec = Categorical(3, shape=(b, w))
        self.reward_spec = Unbounded((b, 1))
        flag = Categorical(2, shape=(b, 1), dtype=torch.bool)
        self.full_done_spec = Composite(
            done=flag.clone(), terminated=flag.clone(), truncated=flag.clone(), shape=(b,)
        )

    def _set_seed(self, seed: int | None) -> None:
        self.rng.manual_seed(0 if seed is None else seed)

    def _reset(self, tensordict: TensorDict | None = None, **_: object) -> TensorDict:
        b, w = self.batch_size[0], self.width
        fresh = draw(self.config, b, self.rng, w)
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
            self.networks = Networks(
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
        self.density = step_density(self.density, tensordict["action"], c.factor, c.min_density)
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

    def _observation(self, over: torch.Tensor) -> TensorDict:
        c, net, d = self.config, self.networks, self.density
        lower = (d * c.factor).clamp(min=c.min_density)
        upper = (d / c.factor).clamp(max=1.0)
        time, gain = net.time(d), net.progress(d, self.done)
        step = net.fixed + time.sum(1)
        pace = gain.sum(1)
        # Progress is read off gradients in a real run, so what is seen of it is noisy.
        noise = torch.exp(c.noise * torch.randn(*gain.shape, generator=self.rng))
        saved = (time - net.time(lower)) / step[:, None]
        added = (net.time(upper) - time) / step[:, None]
        lost = (gain - net.progress(lower, self.done)) / pace[:, None] * noise
        gained = (net.progress(upper, self.done) - gain) / pace[:, None] * noise
        least = torch.full_like(d, c.min_density)
        most_saved = (time - net.time(least)) / step[:, None]
        most_lost = (gain - net.progress(least, self.done)) / pace[:, None] * noise
        layers = torch.stack(
            [
                torch.log(d) / -torch.log(torch.tensor(c.min_density)),
                log_share(time / step[:, None]),
                log_share(saved),
                log_share(added),
                log_share(lost),
                log_share(gained),
                log_share(most_saved) - log_share(most_lost),
            ],
            -1,
        )
        live = net.live
        mean_log = (layers[..., 0] * live).sum(1) / live.sum(1)
        whole = torch.stack(
            [self.done, torch.log(self.spent + 1.0 - self.done), net.fixed / step, mean_log,
             net.slope[:, 0] / 2.5], -1,
        )  # fmt: skip
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
