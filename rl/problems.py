"""What small networks are trained on: tasks with their settings, networks by name."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hwsim import InputError
from hwsim.registry import unknown
from sparse_train.models._classifier import ImageClassifier
from sparse_train.models.mlp import Mlp
from sparse_train.population import AdamW
from sparse_train.tasks._base import Prepared, make_task
from sparse_train.tasks.images import PreparedImages


@dataclass(frozen=True)
class Setting:
    """One task as small networks are trained on it.

    Attributes:
        task, options: of `sparse_train.tasks`.
        batch_size: of each network.
        dense_steps: of the dense run that all others are compared with.
        round_steps: steps between two evaluations on validation data; masks change only there.
        optimizer: the same for dense and sparse runs.
        families: names of the networks that fit.
        width_scale, rows_scale: a network is priced as one whose layers are `width_scale` times
            as wide, on batches with `rows_scale` times as many rows. The small network stands for
            it: on layers of 32 × 32 no machine gains anything by a mask.
    """

    task: str
    options: Mapping[str, Any] = field(hash=False)
    batch_size: int = 32
    dense_steps: int = 240
    round_steps: int = 10
    optimizer: AdamW = field(default_factory=lambda: AdamW(lr=3e-3, warmup=20, density_power=1.0))
    families: tuple[str, ...] = ()
    width_scale: int = 32
    rows_scale: int = 8

    def __post_init__(self) -> None:
        if self.round_steps < 1 or self.dense_steps % self.round_steps:
            raise InputError(
                f"round_steps: value is {self.round_steps}; allowed is a divisor of dense_steps, "
                f"{self.dense_steps}"
            )

    def prepare(self) -> Prepared:
        return make_task(self.task, self.options).prepare()

    @property
    def dense_rounds(self) -> int:
        return self.dense_steps // self.round_steps


SETTINGS = {
    "mlm": Setting(
        "mlm",
        {"vocabulary_size": 262, "tokens": 6, "hidden_share": 0.34, "evaluation_windows": 256},
        batch_size=64,
        families=("bert",),
        width_scale=32,
        rows_scale=4,
    ),
    "images": Setting(
        "images",
        {"data": "digits"},
        batch_size=64,
        dense_steps=160,
        optimizer=AdamW(lr=2e-3, warmup=10, density_power=1.0),
        families=("mlp",),
        width_scale=16,
        rows_scale=32,
    ),
}
_NAME = re.compile(r"(bert|mlp)-(\d+)x(\d+)")


@dataclass(frozen=True)
class Problem:
    """A network on a task.

    Args:
        network: "bert-LAYERSxWIDTH" (on mlm) or "mlp-LAYERSxWIDTH" (on images; its hidden layers).
        task: one of SETTINGS.
    """

    network: str
    task: str

    def __post_init__(self) -> None:
        if self.task not in SETTINGS:
            raise InputError(unknown("task", self.task, tuple(SETTINGS)))
        found = _NAME.fullmatch(str(self.network))
        families = SETTINGS[self.task].families
        if not found or found[1] not in families or min(int(found[2]), int(found[3])) < 1:
            allowed = " or ".join(f"{family}-LAYERSxWIDTH" for family in families)
            raise InputError(
                f"network: value is {self.network!r}; allowed for task {self.task} is {allowed}, "
                f"for example {families[0]}-2x32"
            )

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.task]

    @property
    def data(self) -> Prepared:
        return _data(self.task)

    def build(self, seed: int = 0) -> nn.Module:
        """A new network with the initial weights of `seed`."""
        family, layers, width = _NAME.fullmatch(self.network).groups()  # type: ignore[union-attr]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _BUILDERS[family](self.data, int(layers), int(width))


def _bert(data: Prepared, layers: int, width: int) -> nn.Module:
    heads = next(h for h in range(max(1, width // 8), 0, -1) if width % h == 0)
    options = {"layers": layers, "width": width, "heads": heads, "ffn": 2 * width}
    return data.build_model("bert", "tiny", options)


def _mlp(data: Prepared, layers: int, width: int) -> nn.Module:
    """Weights start as N(0, 2/n_in), so that signals keep their size through any depth.

    Source: He et al. (2015), "Delving deep into rectifiers", section 2.2.
    """
    assert isinstance(data, PreparedImages)
    s = data.sizes
    network = Mlp((s.channels * s.height * s.width, *(width,) * layers, s.classes))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return ImageClassifier(nn.Sequential(nn.Flatten(), network))


_BUILDERS = {"bert": _bert, "mlp": _mlp}


@functools.cache
def _data(task: str) -> Prepared:
    return SETTINGS[task].prepare()


def first_batch(problem: Problem) -> dict[str, Tensor]:
    """A batch of the problem's shapes."""
    return problem.data.batch(1, problem.setting.batch_size, 0)
