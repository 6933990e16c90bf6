"""Extreme classification: which of very many labels belong to an example?"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hwsim.checks import check_integer
from hwsim.errors import InputError
from sparse_train.data.text import STDLIB
from sparse_train.data.xmc_format import XmcData, load_xmc
from sparse_train.tasks._base import Batch, Prepared, Task, check_split, stream

if TYPE_CHECKING:
    from sparse_train.models.extreme import ExtremeConfig
    from sparse_train.runs.config import TrainConfig

_TRAINING = 1
_EVALUATION_BATCH = 64
_BEST = (1, 3, 5)
PLANTED = "planted"


@dataclass(frozen=True)
class Extreme(Task):
    """Settings of the extreme classification task.

    Attributes:
        data: "stdlib" (which names does a function of Python's library call?), "planted" (a
            generated hard set), or the path of a set of the repository: see
            `sparse_train.data.xmc_format.load_xmc`.
        outputs, inputs, examples, noise: of "planted": labels, features, examples, share of
            features that mean nothing.
        most_features: of an example; the largest values are kept.
        evaluation_examples: how many validation and test use at most.

    Under constant fan-in (algorithm srigl, or static, set and rigl with pattern fan_in) the output
    layer is condensed: its matrix is never there. Other algorithms mask a dense one.
    """

    default_model: ClassVar[str] = "extreme"
    default_preset: ClassVar[str] = "small"

    data: str = STDLIB
    outputs: int = 100_000
    inputs: int = 20_000
    examples: int = 20_000
    noise: float = 0.5
    most_features: int = 128
    evaluation_examples: int = 1000

    def __post_init__(self) -> None:
        if not isinstance(self.data, str) or not self.data:
            raise InputError(
                f"data: value is {self.data!r}; allowed is 'stdlib', 'planted' or a path"
            )
        for name in ("outputs", "inputs", "examples"):
            check_integer(name, getattr(self, name), 2)
        check_integer("most_features", self.most_features, 1)
        check_integer("evaluation_examples", self.evaluation_examples, 1)

    def prepare(self) -> PreparedExtreme:
        from sparse_train.data.xmc_sources import library_calls, planted

        if self.data == STDLIB:
            data = library_calls()
        elif self.data == PLANTED:
            data = planted(self.outputs, self.inputs, self.examples, noise=self.noise)
        else:
            data = load_xmc(Path(self.data))
        return PreparedExtreme(self, data)


class PreparedExtreme(Prepared):
    """Examples as padded lists of features and labels."""

    metric: ClassVar[str] = "precision@1"
    lower_is_better: ClassVar[bool] = False

    def __init__(self, settings: Extreme, data: XmcData) -> None:
        self.settings = settings
        self.data = data
        self._training = data.splits["train"]
        self._n_features = int(min(settings.most_features, data.features.counts.max()))
        self._n_labels = int(data.labels.counts.max())
        self._evaluation: dict[str, list[Batch]] = {}

    @cached_property
    def digest(self) -> str:
        settings = {name: v for name, v in asdict(self.settings).items() if name != "data"}
        text = json.dumps([settings, self.data.digest], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "data": {
                "source": self.data.name,
                "digest": self.data.digest,
                "features": self.data.n_features,
                "labels": self.data.n_outputs,
                "examples": {name: len(rows) for name, rows in self.data.splits.items()},
                "labels_per_example": float(self.data.labels.counts.mean()),
            },
        }

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        from sparse_train.models.extreme import Extreme as Model

        return Model(self._sizes(model, preset, options))

    def build_for(self, config: TrainConfig) -> nn.Module:
        from sparse_train.models.extreme import Extreme as Model

        sizes = self._sizes(config.model, config.preset, config.model_options)
        return Model(sizes, _fan_in(config, sizes) if _condensed(config) else None)

    def priced_model(self, model: nn.Module) -> nn.Module:
        """The same with a dense output layer, without memory."""
        from sparse_train.models.extreme import Extreme as Model

        assert isinstance(model, Model)
        with torch.device("meta"):
            return Model(model.config)

    def make_sparsifier(self, config: TrainConfig, model: nn.Module, optimizer: Optimizer) -> Any:
        """For a condensed output layer a CondensedSparsifier, which has all a trainer asks."""
        if not _condensed(config):
            return super().make_sparsifier(config, model, optimizer)
        from sparse_train.compute.condensed_sparsifier import CondensedSparsifier
        from sparse_train.distributions import distribution
        from sparse_train.masking.build import make_algorithm
        from sparse_train.masking.plan import make_plan
        from sparse_train.models.extreme import OUTPUT

        if config.compute != "masked":
            raise InputError(
                f"compute: value is {config.compute!r}; allowed with a condensed output layer, "
                "which has kernels of its own, is 'masked'"
            )
        if config.layers not in (None, "all", OUTPUT, (OUTPUT,)):
            raise InputError(f"layers: value is {config.layers!r}; allowed here is {OUTPUT!r}")
        if config.schedule not in (None, "constant"):
            raise InputError(
                f"schedule: value is {config.schedule!r}; allowed with a condensed output layer, "
                "which keeps its fan-in, is 'constant'"
            )
        rule = make_algorithm(config.algorithm, config.algorithm_options)
        interval = config.interval
        plan = make_plan(
            {OUTPUT: (self.data.n_outputs, model.get_submodule(OUTPUT).n_in)},  # type: ignore
            density=config.density,
            distribution=distribution("uniform"),
            schedule="constant",
            initial_density=1.0,
            update_interval=rule.update_interval if interval is None else interval,
            drop_fraction=config.drop_fraction,
            drop_schedule="cosine",
            end_step=config.end_step,
            total_steps=config.steps,
        )
        return CondensedSparsifier(model, OUTPUT, optimizer, rule, plan, config.seed)

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        return self._sizes(model, preset, options).width

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """At least one hidden neuron."""
        width = self._sizes(model, preset, options).width
        return {**options, "width": min(width, max(1, round(share * width)))}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """features (batch, most), weights of that shape, labels (batch, most).

        Where an example has fewer: weights 0, and the number of outputs as label.
        """
        rng = stream(_TRAINING, seed, step)
        return self._of(self._training[rng.integers(0, len(self._training), batch_size)])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        """Mean loss; precision@k for k 1, 3, 5: the share of the k best that are right."""
        batches = self.evaluation_batches(split)
        was_training = model.training
        model.eval()
        loss = n = 0.0
        right = dict.fromkeys(_BEST, 0.0)
        most = min(max(_BEST), self.data.n_outputs)
        try:
            for batch in batches:
                labels = batch["labels"]
                loss += float(model(**batch).loss) * len(labels)
                n += len(labels)
                best = model.best(batch["features"], batch["weights"], most)  # type: ignore
                hits = (best[:, :, None] == labels[:, None, :]).any(-1)  # (batch, best)
                for k in right:
                    right[k] += float(hits[:, :k].sum()) / k
        finally:
            model.train(was_training)
        return {"loss": loss / n, **{f"precision@{k}": hits / n for k, hits in right.items()}}

    def trivial(self, split: str = "validation") -> dict[str, dict[str, float]]:
        """The most frequent labels of training, whatever the example."""
        labels, _ = self.data.labels.padded(self._training, self._n_labels)
        counts = np.bincount(labels[labels >= 0], minlength=self.data.n_outputs)
        best = np.argsort(-counts, kind="stable")[: max(_BEST)]
        wanted = torch.cat([batch["labels"] for batch in self.evaluation_batches(split)]).numpy()
        hits = (best[None, :, None] == wanted[:, None, :]).any(-1)  # (examples, best)
        found = {f"precision@{k}": float(hits[:, :k].sum() / k / len(wanted)) for k in _BEST}
        return {"most frequent labels": found}

    def evaluation_batches(self, split: str = "validation") -> list[Batch]:
        check_split(split)
        if split not in self._evaluation:
            rows = self.data.splits[split]
            n = min(len(rows), self.settings.evaluation_examples)
            rows = rows[np.arange(n) * len(rows) // n]
            starts = range(0, n, _EVALUATION_BATCH)
            self._evaluation[split] = [self._of(rows[s : s + _EVALUATION_BATCH]) for s in starts]
        return self._evaluation[split]

    def _of(self, rows: np.ndarray) -> Batch:
        features, weights = self.data.features.padded(rows, self._n_features)
        labels, _ = self.data.labels.padded(rows, self._n_labels)
        labels[labels < 0] = self.data.n_outputs
        arrays = {"features": features.clip(min=0), "weights": weights, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _sizes(self, model: str, preset: str, options: Mapping[str, Any]) -> ExtremeConfig:
        from sparse_train.models.extreme import ExtremeConfig

        if model != "extreme":
            raise InputError(f"model: value is {model!r}; allowed for task extreme is 'extreme'")
        set_here = {
            "features": self.data.n_features,
            "outputs": self.data.n_outputs,
            "prior": min(0.5, float(self.data.labels.counts.mean()) / self.data.n_outputs),
        }
        for name, size in set_here.items():
            if name in options:
                raise InputError(
                    f"model_options: {name} is {options[name]!r}; task extreme sets it, here to "
                    f"{size:g}"
                )
        return ExtremeConfig.preset(preset, **set_here, **options)


def _condensed(config: TrainConfig) -> bool:
    """Whether the run's output layer is of constant fan-in, and so kept condensed."""
    if config.algorithm == "srigl":
        return True
    return config.algorithm in ("static", "set", "rigl") and config.pattern == "fan_in"


def _fan_in(config: TrainConfig, sizes: ExtremeConfig) -> int:
    """The largest fan-in within the density, at least 1."""
    return min(sizes.width, max(1, math.floor(round(config.density * sizes.width, 9))))


TASK = Extreme
