"""A transformer encoder that says which class a text is of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.checks import check_integer
from hwsim.errors import InputError, unknown
from sparse_train.models._family import Family
from sparse_train.models.bert import BertConfig, EncoderLayer, initialise
from sparse_train.weightless import weightless


@dataclass(frozen=True)
class TextClassifierConfig:
    """Sizes: tokens known, longest text, classes, encoder layers, width, heads, inner width."""

    vocabulary: int = 2048
    max_length: int = 64
    classes: int = 10
    layers: int = 2
    width: int = 64
    heads: int = 4
    ffn: int = 256

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            check_integer(field.name, value, 1)
        if self.width % self.heads:
            raise InputError(f"heads: value is {self.heads}; allowed is a divisor of {self.width}")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TextClassifierConfig:
        """One of PRESETS, some of its sizes replaced."""
        if name not in PRESETS:
            raise InputError(unknown("text_classifier preset", name, tuple(PRESETS)))
        fields = tuple(f.name for f in dataclasses.fields(cls))
        for key in overrides:
            if key not in fields:
                raise InputError(unknown("text_classifier size", key, fields))
        return dataclasses.replace(PRESETS[name], **overrides)

    def scaled(self, share: float) -> TextClassifierConfig:
        """The same at a share of its widths, in multiples of the heads."""
        width = max(1, round(share * self.width / self.heads)) * self.heads
        return dataclasses.replace(self, width=width, ffn=max(1, round(share * self.ffn)))


# Ours: trained in a minute or two; `base` has BERT base's encoder (Devlin et al. 2019).
PRESETS = {
    "tiny": TextClassifierConfig(),
    "small": TextClassifierConfig(layers=4, width=128, ffn=512),
    "base": TextClassifierConfig(30522, 512, 10, 12, 768, 12, 3072),
}


class TextClassifierOutput(NamedTuple):
    """logits (batch, classes); loss is a scalar, None without labels."""

    loss: Tensor | None
    logits: Tensor


class TextClassifier(nn.Module):
    """BERT's encoder, pre-LN, without its head; the mean over a text's tokens is classified.

    Source: Devlin et al. (2019), "BERT". Deviation: no [CLS] token; at these lengths, trained from
    scratch, the mean learns faster.
    """

    def __init__(self, config: TextClassifierConfig) -> None:
        super().__init__()
        self.config = config
        encoder = BertConfig(
            layers=config.layers, width=config.width, heads=config.heads, ffn=config.ffn
        )
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.embedding_norm = nn.LayerNorm(config.width)
        self.encoder = nn.ModuleList(EncoderLayer(encoder) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)
        initialise(self, config.width)

    def forward(
        self, input_ids: Tensor, lengths: Tensor, labels: Tensor | None = None
    ) -> TextClassifierOutput:
        """Classifies.

        Args:
            input_ids: (batch, tokens) int64, padded at the end.
            lengths: (batch,) int64, at least 1: what is not padding.
            labels: (batch,) int64.
        """
        tokens = input_ids.shape[1]
        if tokens > self.config.max_length:
            raise InputError(
                f"input_ids: {tokens} tokens; allowed are at most {self.config.max_length}"
            )
        real = torch.arange(tokens, device=input_ids.device) < lengths[:, None]  # (batch, tokens)
        x = self.embedding_norm(self.tokens(input_ids) + self.positions.weight[:tokens])
        for layer in self.encoder:
            x = layer(x, real[:, None, None, :])
        share = real.to(x.dtype) / lengths[:, None]
        logits = self.head((self.norm(x) * share.unsqueeze(-1)).sum(1))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return TextClassifierOutput(loss, logits)


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[TextClassifier, dict[str, Tensor]]:
    config = TextClassifierConfig.preset(preset).scaled(share)
    config = dataclasses.replace(config, max_length=max(length, config.max_length))
    with weightless():
        return TextClassifier(config), {
            "input_ids": torch.zeros(batch_size, length, dtype=torch.long),
            "lengths": torch.ones(batch_size, dtype=torch.long),
            "labels": torch.zeros(batch_size, dtype=torch.long),
        }


FAMILY = Family(
    presets=tuple(PRESETS),
    build=_build,
    widths=lambda preset: PRESETS[preset].width // PRESETS[preset].heads,
)
