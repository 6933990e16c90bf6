"""What every environment offers to policies, opponents and evaluation.

Two are there: `rl.envs.whitebox.WhiteBoxEnv` (a formula with a known optimum; `rl.surrogate` makes
one that is fitted to recorded runs) and `rl.envs.training.SparseTrainingEnv` (real training of
small networks). Both are batched TorchRL environments and subclasses of `ScheduleEnv`, so that what
works on one works on the other. `rl.envs.gym` wraps a real run for Gymnasium (`SparseTraining-v0`).

One slot of the batch is one training run, b slots side by side, each padded to `width` layers:

    key        shape           meaning
    layers     (b, width, F)   rl.envs.observe.LAYER_FEATURES, 0 in padding
    whole      (b, G)          rl.envs.observe.GLOBAL_FEATURES
    live       (b, width)      bool: layers that exist
    density    (b, width)      reached, not asked for; 1 in padding
    time       (b, 1)          T̂ / T_dense: net time so far + dense net time from the present loss
                               to the target, over that of the dense run. At the end of an episode
                               that reached its target, 1 / time is its speed-up.
    reward, done, terminated, truncated (b, 1)

    action     (b, width)      mode "step": int64, rl.envs.act.SPARSIFY, KEEP or DENSIFY
                               mode "density": float32 in [min_density, max_density]; what lies
                               outside is clamped
                               Of layers that exist anything else (a step of 7, a density that is
                               not finite) is an InputError.

An opponent is a function (env, observation) → action. It may ask the environment for

    env.density, env.live      as observed
    env.progress               (b,) share of the dense run's way to the target that is behind
    env.elapsed                (b,) steps taken / steps of the dense run to the target; may pass 1
    env.layer_time(density)    (b, width) time of each layer at these densities, in units of the
                               dense step; density is (b, width)
    env.fixed_time             (b,) what no mask reduces, in the same unit
    env.layer_progress(density)  (b, width) progress to be expected of each layer, in units of the
                               dense run's; exact in the white box, from gradients in a real run
    env.shapes                 per slot ((n_out, n_in), …) of its layers; None in the white box
    env.contexts               per slot a Context; None in the white box
    env.action_for(wanted)     the action (of the environment's mode) that comes nearest to
                               `wanted` (b, width) densities

`env.reset()` draws contexts anew from the environment's own stream; `env.reset(contexts=[…])` runs
the given ones (a slot's network and task are its own and must be repeated). `env.state_dict()` and
`env.load_state_dict(state)` hold everything that the next steps depend on, the random stream too;
tensors, numbers and strings only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from hwsim import InputError
from hwsim.checks import check_integer, check_number
from hwsim.errors import unknown
from rl.envs.act import checked_densities, checked_steps, toward
from rl.envs.observe import GLOBAL_FEATURES, LAYER_FEATURES

MODES = ("step", "density")


@dataclass(frozen=True)
class Context:
    """What one episode trains, and on what its time is counted.

    Attributes:
        network, task: names in `rl.runs.problems`.
        device: a name or file for `hwsim.load_device`.
        target: the loss to be reached is that of the dense run after this share of its steps.
        seed: of initial weights and data order; the dense run that it is compared with has it too.
        reference: the network whose dense run sets target and dense time; "" for `network` itself.
            So a narrower dense network can be held against the network that it replaces.
    """

    network: str
    task: str
    device: str
    target: float = 1.0
    seed: int = 0
    reference: str = ""

    def __post_init__(self) -> None:
        check_number("target", self.target, above=0, most=1)
        check_integer("seed", self.seed, 0)


class ScheduleEnv(EnvBase):
    """`batch` training runs side by side; see the module's docstring for what it offers."""

    density: Tensor
    fixed_time: Tensor
    points: float = 0.0  # of a step of the action, where it is not a factor

    def __init__(
        self, batch: int, width: int, *, mode: str, factor: float, min_density: float, seed: int,
        max_density: float = 1.0,
    ) -> None:  # fmt: skip
        if mode not in MODES:
            raise InputError(unknown("action mode", mode, MODES))
        check_number("batch", batch, least=1)
        super().__init__(batch_size=torch.Size([batch]))
        self.width, self.mode, self.factor = width, mode, factor
        self.min_density, self.max_density = min_density, max_density
        self.rng = torch.Generator().manual_seed(seed)
        b, w = batch, width
        self.observation_spec = Composite(
            layers=Unbounded((b, w, len(LAYER_FEATURES))),
            whole=Unbounded((b, len(GLOBAL_FEATURES))),
            live=Categorical(2, shape=(b, w), dtype=torch.bool),
            density=Bounded(0.0, 1.0, (b, w)),
            time=Unbounded((b, 1)),
            shape=(b,),
        )
        if mode == "step":
            self.action_spec = Categorical(3, shape=(b, w))
        else:
            self.action_spec = Bounded(min_density, max_density, (b, w))
        self.reward_spec = Unbounded((b, 1))
        flag = Categorical(2, shape=(b, 1), dtype=torch.bool)
        self.full_done_spec = Composite(
            done=flag.clone(), terminated=flag.clone(), truncated=flag.clone(), shape=(b,)
        )

    @property
    @abstractmethod
    def live(self) -> Tensor:
        """(b, width) bool."""

    @property
    @abstractmethod
    def progress(self) -> Tensor:
        """(b,)."""

    @property
    @abstractmethod
    def elapsed(self) -> Tensor:
        """(b,)."""

    @abstractmethod
    def layer_time(self, density: Tensor) -> Tensor:
        """(b, width), in dense steps."""

    @abstractmethod
    def layer_progress(self, density: Tensor) -> Tensor:
        """(b, width), in dense steps."""

    @property
    def shapes(self) -> Sequence[tuple[tuple[int, int], ...]] | None:
        """(n_out, n_in) of each layer, by slot; None where there are none."""
        return None

    @property
    def contexts(self) -> Sequence[Context] | None:
        """What is trained in each slot; None where nothing is."""
        return None

    def action_for(self, wanted: Tensor) -> Tensor:
        """The action that comes nearest to densities `wanted`, (b, width)."""
        bounded = wanted.clamp(self.min_density, self.max_density)
        if self.mode == "density":
            return bounded.to(torch.float32)
        return toward(self.density, bounded, self.factor, self.points)

    def checked(self, action: Tensor) -> Tensor:
        """An action (b, width) as it is carried out.

        Raises:
            InputError: it is none, for a layer that exists.
        """
        if self.mode == "density":
            return checked_densities(action, self.min_density, self.max_density, self.live)
        return checked_steps(action, self.live)

    def _set_seed(self, seed: int | None) -> None:
        self.rng.manual_seed(0 if seed is None else seed)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Tensors, numbers and strings: all that the next steps depend on."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:  # type: ignore[override]
        """Goes on from a `state_dict` of an environment of the same settings."""
