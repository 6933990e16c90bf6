"""What small networks are trained on: tasks with their settings, networks by name."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hwsim import InputError, Workload
from hwsim.errors import unknown
from sparse_train.classifier import ImageClassifier
from sparse_train.masking.layers import select_layers
from sparse_train.models.mlp import Mlp
from sparse_train.models.simple_cnn import SimpleCnn
from sparse_train.narrower import nearest_width, sparse_flops
from sparse_train.networks import NETWORKS, Networks, Recipe
from sparse_train.population.train import AdamW
from sparse_train.registries import TASKS
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import Prepared, make_task
from sparse_train.tasks.images import PreparedImages
from sparse_train.workload import workload


@dataclass(frozen=True)
class ProblemSetting:
    """One task as small networks are trained on it.

    Attributes:
        task, options: of `sparse_train.tasks`.
        batch_size: of each network.
        dense_steps: of the dense run that all others are compared with.
        round_steps: steps between two evaluations on validation data; masks change only there.
        optimizer: the same for dense and sparse runs.
        families: names of the networks that fit.
        small, unseen: networks to learn from and to judge on, where none is named.
        trained: a name in `sparse_train.networks`: together, where all networks can share the
            batches of their seeds; else one by one, which takes far longer.
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
    small: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    trained: str = "together"
    width_scale: int = 32
    rows_scale: int = 8

    def __post_init__(self) -> None:
        if self.round_steps < 1 or self.dense_steps % self.round_steps:
            raise InputError(
                f"round_steps: value is {self.round_steps}; allowed is a divisor of dense_steps, "
                f"{self.dense_steps}"
            )

    def prepare(self) -> Prepared:
        """The task with its data."""
        return make_task(self.task, self.options).prepare()

    @property
    def dense_rounds(self) -> int:
        """Rounds of a dense run."""
        return self.dense_steps // self.round_steps


SETTINGS = {
    "mlm": ProblemSetting(
        "mlm",
        {"vocabulary_size": 262, "tokens": 6, "hidden_share": 0.34, "evaluation_windows": 256},
        batch_size=64,
        families=("bert",),
        small=("bert-1x16", "bert-1x24"),
        unseen=("bert-2x24",),
        width_scale=32,
        rows_scale=4,
    ),
    "images": ProblemSetting(
        "images",
        {"data": "digits"},
        batch_size=64,
        dense_steps=160,
        optimizer=AdamW(lr=2e-3, warmup=10, density_power=1.0),
        families=("mlp", "simple_cnn"),
        small=("mlp-1x16", "mlp-2x16"),
        unseen=("mlp-3x32",),
        width_scale=16,
        rows_scale=32,
    ),
    "text_classification": ProblemSetting(
        "text_classification",
        {"classes": 5, "vocabulary_size": 400, "tokens": 16},
        optimizer=AdamW(lr=1e-3, warmup=20, density_power=1.0),
        families=("text_classifier",),
        small=("text_classifier-1x16", "text_classifier-1x24"),
        unseen=("text_classifier-2x24",),
    ),
    "translation": ProblemSetting(
        "translation",
        {"vocabulary_size": 512, "tokens": 10, "evaluation_pairs": 256},
        dense_steps=160,
        optimizer=AdamW(lr=1e-3, warmup=20, density_power=1.0),
        families=("seq2seq",),
        small=("seq2seq-1x16", "seq2seq-1x24"),
        unseen=("seq2seq-2x24",),
    ),
    "extreme": ProblemSetting(
        "extreme",
        {"data": "planted", "outputs": 200, "inputs": 300, "examples": 4000,
         "evaluation_examples": 256},
        families=("extreme",),
        small=("extreme-1x16", "extreme-1x24"),
        unseen=("extreme-1x48",),
    ),
    "recommendation": ProblemSetting(
        "recommendation",
        {"ratings": "generated"},
        batch_size=256,
        dense_steps=160,
        optimizer=AdamW(lr=2e-2, warmup=10),
        families=("factorization", "lightgcn"),
        small=("factorization-1x16", "factorization-1x24"),
        unseen=("factorization-1x48",),
        trained="one_by_one",
    ),
    "control": ProblemSetting(
        "control",
        {"steps_per_update": 4, "explore_steps": 2000, "evaluation_episodes": 8},
        batch_size=64,
        dense_steps=1000,
        round_steps=50,
        optimizer=AdamW(lr=1e-3, warmup=20, density_power=1.0),
        families=("q_network",),
        small=("q_network-2x48", "q_network-2x64"),
        unseen=("q_network-2x96",),
        trained="one_by_one",
    ),
    # One network for the whole stream, as the dense run that it is compared with has one.
    "continual": ProblemSetting(
        "continual",
        {"tasks": 4, "steps_per_task": 60, "subnetworks": "shared"},
        optimizer=AdamW(lr=3e-3, warmup=20, density_power=1.0),
        families=("multi_head",),
        small=("multi_head-1x32", "multi_head-2x32"),
        unseen=("multi_head-3x32",),
        trained="one_by_one",
    ),
}  # fmt: skip
_NAME = re.compile(r"([a-z][a-z0-9_]*)-(\d+)x(\d+)(?:@(\d+(?:\.\d+)?(?:e-?\d+)?))?")


def setting(task: str) -> ProblemSetting:
    """How small networks are trained on a task.

    Raises:
        InputError: an unknown task (the valid ones are listed).
    """
    if task not in SETTINGS:
        raise InputError(unknown("task", task, tuple(SETTINGS)))
    return SETTINGS[task]


@dataclass(frozen=True)
class Problem:
    """A network on a task.

    Args:
        network: "FAMILY-LAYERSxWIDTH", the family one that fits the task: bert (mlm), mlp
            (images; its hidden layers), simple_cnn (images; four convolutions, the first of
            WIDTH channels), text_classifier, seq2seq (translation; layers of encoder
            and decoder each), extreme (one layer), factorization (one layer), lightgcn (layers of
            propagation), q_network and multi_head (hidden layers). "…@FACTOR" trains at so many
            times the task's learning rate; see `at_rate`.
        task: one of SETTINGS.
    """

    network: str
    task: str

    def __post_init__(self) -> None:
        families = setting(self.task).families
        found = _NAME.fullmatch(str(self.network))
        family, layers, width, factor = found.groups() if found else ("", "0", "0", None)
        good = family in families and min(int(layers), int(width)) > 0
        good = good and (factor is None or float(factor) > 0)
        if good and int(layers) == _LAYERS.get(family, int(layers)):
            return
        shapes = [f"{one}-{_LAYERS.get(one, 'LAYERS')}xWIDTH" for one in families]
        example = shapes[0].replace("LAYERS", "2").replace("WIDTH", "32")
        raise InputError(
            f"network: value is {self.network!r}; allowed for task {self.task} is "
            f"{' or '.join(shapes)}, for example {example}"
        )

    @property
    def setting(self) -> ProblemSetting:
        """The task's, at the network's own learning rate."""
        own = SETTINGS[self.task]
        if self.factor == 1:
            return own
        rate = own.optimizer.lr * self.factor
        return dataclasses.replace(own, optimizer=dataclasses.replace(own.optimizer, lr=rate))

    @property
    def factor(self) -> float:
        """Its learning rate over the task's."""
        return float(_NAME.fullmatch(self.network)[4] or 1)  # type: ignore[index]

    @property
    def data(self) -> Prepared:
        """The task's data, prepared once."""
        return _data(self.task)

    @property
    def recipe(self) -> Recipe:
        """How the network is built and trained."""
        return _recipe(self)

    @property
    def layers(self) -> tuple[str, ...] | None:
        """What is masked, as for `sparsify`."""
        return TASKS.get(self.setting.task).default_layers

    def build(self, seed: int = 0) -> nn.Module:
        """A new network with the initial weights of `seed`."""
        family, layers, width = self.parts
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if family == "mlp":
                return _mlp(self.data, layers, width)
            if family == "simple_cnn":
                return _cnn(self.data, width)
            preset, options = _SIZES[family](layers, width)
            return self.data.build_model(family, preset, options)

    def networks(self, size: int) -> Networks:
        """Room for `size` networks, trained in the task's way."""
        return NETWORKS.get(self.setting.trained)(self.recipe, size)

    @property
    def config(self) -> TrainConfig:
        """A dense run of this network as `nettime train` has it, under masks that stay."""
        family, layers, width = self.parts
        s, o = self.setting, self.setting.optimizer
        preset, options = _SIZES.get(family, lambda *_: ("small", {}))(layers, width)
        return TrainConfig(
            task=s.task, task_options=dict(s.options), model=family, preset=preset,
            model_options=options, layers=self.layers, algorithm="static", density=1.0,
            distribution="uniform", batch_size=s.batch_size, steps=s.dense_steps,
            learning_rate=o.lr, warmup_steps=o.warmup, decay="none", weight_decay=o.weight_decay,
            beta1=o.betas[0], beta2=o.betas[1], clip_norm=None,
        )  # fmt: skip

    @property
    def parts(self) -> tuple[str, int, int]:
        """Family, layers, width."""
        family, layers, width, _ = _NAME.fullmatch(self.network).groups()  # type: ignore[union-attr]
        return family, int(layers), int(width)


def _widths(width: int) -> dict[str, int]:
    """A transformer's: heads of 8 where that divides, an inner width twice the width."""
    heads = next(h for h in range(max(1, width // 8), 0, -1) if width % h == 0)
    return {"width": width, "heads": heads, "ffn": 2 * width}


def _encoder(layers: int, width: int) -> tuple[str, dict[str, Any]]:
    return "tiny", {"layers": layers, **_widths(width)}


def _seq2seq(layers: int, width: int) -> tuple[str, dict[str, Any]]:
    return "tiny", {"encoder_layers": layers, "decoder_layers": layers, **_widths(width)}


def _wide(layers: int, width: int) -> tuple[str, dict[str, Any]]:
    return "small", {"width": width}


def _deep(layers: int, width: int) -> tuple[str, dict[str, Any]]:
    return "small", {"layers": layers, "width": width}


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


def _cnn(data: Prepared, width: int) -> nn.Module:
    """Channels as in the model's presets; GroupNorm, since a population keeps no statistics."""
    assert isinstance(data, PreparedImages)
    s = data.sizes
    channels = (width, 2 * width, 4 * width, 4 * width)
    return ImageClassifier(SimpleCnn(channels, s.classes, s.channels, "group"))


# Family → (layers, width) → preset and options of the task's own model. The mlp of agents has
# layers of any number and is built here.
_SIZES: dict[str, Callable[[int, int], tuple[str, dict[str, Any]]]] = {
    "bert": _encoder, "text_classifier": _encoder, "seq2seq": _seq2seq, "extreme": _wide,
    "factorization": _wide, "lightgcn": _deep, "q_network": _deep, "multi_head": _deep,
}  # fmt: skip
# Families with a fixed number of layers.
_LAYERS = {"extreme": 1, "factorization": 1, "simple_cnn": 4}


@functools.cache
def _data(task: str) -> Prepared:
    return SETTINGS[task].prepare()


@functools.cache
def _recipe(problem: Problem) -> Recipe:
    """One for all who train the problem's networks, so that they share the batches made."""
    return Recipe(problem.data, problem.config, problem.setting.optimizer, problem.build)


def at_rate(network: str, factor: float) -> str:
    """The network at `factor` times the task's learning rate, whatever its own was.

    >>> at_rate("mlp-1x16", 4.0), at_rate("mlp-1x16@4", 1.0)
    ('mlp-1x16@4', 'mlp-1x16')
    """
    bare = network.partition("@")[0]
    return bare if factor == 1 else f"{bare}@{factor:g}"


@functools.cache
def narrower(network: str, task: str, density: float) -> str:
    """The dense network nearest in FLOPs of a step to `network` at `density`.

    >>> narrower("mlp-1x16", "images", 1.0)
    'mlp-1x16'
    """
    problem = Problem(network, task)
    family, layers, width = problem.parts
    step = _step(problem)
    masked = {one.name for one in select_layers(problem.build(), problem.layers, None).layers}

    def flops(narrow: int) -> float:
        return _step(Problem(f"{family}-{layers}x{narrow}", task)).dense_flops

    target = sparse_flops(step, masked, density)
    found = f"{family}-{layers}x{nearest_width(flops, width, target, step.dense_flops)}"
    return at_rate(found, problem.factor)


def _step(problem: Problem) -> Workload:
    return workload(problem.data.priced_model(problem.build()), first_batch(problem))


def first_batch(problem: Problem) -> dict[str, Tensor]:
    """A batch of the problem's shapes."""
    return problem.data.batch(1, problem.setting.batch_size, 0)
