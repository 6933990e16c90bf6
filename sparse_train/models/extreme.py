"""A bag of features, one hidden layer and a very wide output layer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.checks import check_integer, check_number
from hwsim.errors import InputError, unknown
from sparse_train.compute.condensed import CondensedLinear
from sparse_train.models._family import Family, rounded_width
from sparse_train.weightless import weightless

OUTPUT = "output"  # the name of the wide layer


@dataclass(frozen=True)
class ExtremeConfig:
    """Sizes of the model.

    Attributes:
        features: different inputs that there may be.
        width: of the hidden layer.
        outputs: labels.
        prior: of a label: where the output's biases start, as its log-odds.
    """

    features: int = 4096
    width: int = 256
    outputs: int = 4096
    prior: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("features", "width", "outputs"):
            value = getattr(self, name)
            check_integer(name, value, 1)
        check_number("prior", self.prior, above=0, below=1)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> ExtremeConfig:
        """One of PRESETS, some of its sizes replaced."""
        if name not in PRESETS:
            raise InputError(unknown("extreme preset", name, tuple(PRESETS)))
        fields = tuple(f.name for f in dataclasses.fields(cls))
        for key in overrides:
            if key not in fields:
                raise InputError(unknown("extreme size", key, fields))
        return dataclasses.replace(PRESETS[name], **overrides)


# wiki10, amazon670k: features and labels of the repository's sets of these names; widths are ours.
PRESETS = {
    "small": ExtremeConfig(width=128),
    "medium": ExtremeConfig(width=512),
    "wiki10": ExtremeConfig(101_938, 512, 30_938),
    "amazon670k": ExtremeConfig(135_909, 512, 670_091),
}


class ExtremeOutput(NamedTuple):
    """loss is a scalar, None without labels; scores (batch, outputs), None with them."""

    loss: Tensor | None
    scores: Tensor | None


class Extreme(nn.Module):
    """Embedded features, summed; LayerNorm and ReLU; a linear output for each label.

    Args:
        config: sizes.
        fan_in: active weights of each output, kept condensed; None for a dense output layer.
    """

    def __init__(self, config: ExtremeConfig, fan_in: int | None = None) -> None:
        super().__init__()
        self.config = config
        bias = float(torch.logit(torch.tensor(config.prior, device="cpu")))
        self.features = nn.Embedding(config.features, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.output: nn.Linear | CondensedLinear
        if fan_in is None:
            self.output = nn.Linear(config.width, config.outputs)
            nn.init.constant_(self.output.bias, bias)
        else:
            self.output = CondensedLinear(config.width, config.outputs, fan_in, bias=bias)

    def forward(
        self, features: Tensor, weights: Tensor, labels: Tensor | None = None
    ) -> ExtremeOutput:
        """Scores, or the loss on labels.

        Args:
            features: (batch, most), int64; where an example has fewer, any with weight 0.
            weights: of the features, float32, of the same shape.
            labels: (batch, most), int64, the number of outputs where there are fewer.

        The loss is one-versus-all binary cross-entropy, summed over outputs, mean over the batch;
        what it orders best is precision@k (Menon et al. 2019, section 4).
        """
        hidden = self.hidden(features, weights)
        if labels is None:
            return ExtremeOutput(None, self.output(hidden))
        if isinstance(self.output, CondensedLinear):
            return ExtremeOutput(self.output.loss(hidden, labels), None)
        scores = self.output(hidden)
        # One column more than there are outputs takes the labels that are not there.
        right = scores.new_zeros(len(labels), self.config.outputs + 1)
        right = right.scatter(1, labels, 1.0)[:, :-1]
        loss = F.binary_cross_entropy_with_logits(scores, right, reduction="sum") / len(labels)
        return ExtremeOutput(loss, None)

    def hidden(self, features: Tensor, weights: Tensor) -> Tensor:
        """(batch, width)."""
        embedded = self.features(features)  # (batch, most, width)
        return F.relu(self.norm((weights[:, None] @ embedded)[:, 0]))

    @torch.no_grad()
    def best(self, features: Tensor, weights: Tensor, k: int) -> Tensor:
        """(batch, k): the labels with the highest scores, highest first."""
        hidden = self.hidden(features, weights)
        if isinstance(self.output, CondensedLinear):
            return self.output.best(hidden, k)
        return torch.topk(self.output(hidden), k).indices


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[Extreme, dict[str, Tensor]]:
    """`length` is that of an example's features; it has five labels."""
    features = torch.zeros(batch_size, length, dtype=torch.long)
    with weightless():
        model = Extreme(
            ExtremeConfig.preset(preset, width=rounded_width(share, PRESETS[preset].width, 1))
        )
        weights = torch.empty(batch_size, length)
    labels = torch.zeros(batch_size, 5, dtype=torch.long)
    return model, {"features": features, "weights": weights, "labels": labels}


FAMILY = Family(presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset].width)
