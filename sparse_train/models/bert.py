"""A BERT-like masked-language model."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.checks import check_integer
from hwsim.errors import InputError, unknown
from sparse_train.models._family import Family, rounded_width
from sparse_train.weightless import weightless

MASKED_SHARE = 0.15  # of the positions, as in the paper
EMBEDDING_STD = 0.02
PAPER_WIDTH = 768


@dataclass(frozen=True)
class BertConfig:
    """Sizes of the model.

    Attributes:
        vocabulary: tokens.
        max_length: positions with an embedding.
        layers, width, heads, ffn: encoder layers, model width, attention heads, inner width of
            the feed-forward part.
        tied: the output layer uses the token embedding's weight, as in the paper.
    """

    vocabulary: int = 30522
    max_length: int = 512
    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 3072
    tied: bool = True

    def __post_init__(self) -> None:
        for field in ("vocabulary", "max_length", "layers", "width", "heads", "ffn"):
            value = getattr(self, field)
            check_integer(field, value, 1)
        if self.width % self.heads:
            raise InputError(f"heads: value is {self.heads}; allowed is a divisor of {self.width}")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> BertConfig:
        """One of PRESETS, some of its sizes replaced.

        >>> BertConfig.preset("tiny", layers=2).width
        128
        """
        if name not in PRESETS:
            raise InputError(unknown("bert preset", name, tuple(PRESETS)))
        fields = tuple(f.name for f in dataclasses.fields(cls))
        for key in overrides:
            if key not in fields:
                raise InputError(unknown("bert size", key, fields))
        return dataclasses.replace(PRESETS[name], **overrides)

    def scaled(self, width: int) -> BertConfig:
        """The same model at another width: inner width in proportion, a head count that divides."""
        ffn = max(1, round(self.ffn * width / self.width))
        heads = next(h for h in range(min(self.heads, width), 0, -1) if width % h == 0)
        return dataclasses.replace(self, width=width, ffn=ffn, heads=heads)


# Widths are multiples of it.
UNIT = 8
# base: Devlin et al. (2019); mini, small: Turc et al. (2019); tiny: ours, for the demo.
PRESETS = {
    "tiny": BertConfig(vocabulary=2048, max_length=128, layers=3, width=128, heads=4, ffn=512),
    "mini": BertConfig(layers=4, width=256, heads=4, ffn=1024),
    "small": BertConfig(layers=4, width=512, heads=8, ffn=2048),
    "base": BertConfig(),
}


class MaskedLanguageOutput(NamedTuple):
    """logits (batch, positions, vocabulary); loss is a scalar, None without labels."""

    loss: Tensor | None
    logits: Tensor


class Attention(nn.Module):
    """Self-attention with its four projections as linear layers of their own."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:  # (batch, tokens, width)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.output(mixed.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Attention and feed-forward part, each after a LayerNorm and added to its input."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.ffn)
        self.down = nn.Linear(config.ffn, config.width)

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), allowed)
        return x + self.down(F.gelu(self.up(self.ffn_norm(x))))


class Bert(nn.Module):
    """Encoder with a masked-language head.

    Pre-LN (Xiong et al. 2020), where the paper's is post-LN: it trains without a long warm-up.
    The head is the paper's: dense, GELU, LayerNorm, output layer. Embeddings start as
    N(0, 0.02²), the paper's value. So do linear weights at the paper's width of 768; at other
    widths their variance goes as 1/width, without which narrow models hardly start to learn.
    Biases start as 0.

    Source: Devlin et al. (2019), "BERT", sections 3 and A.2.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.embedding_norm = nn.LayerNorm(config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.transform = nn.Linear(config.width, config.width)
        self.transform_norm = nn.LayerNorm(config.width)
        self.decoder = nn.Linear(config.width, config.vocabulary)
        initialise(self, config.width)
        if config.tied:
            self.decoder.weight = self.tokens.weight

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> MaskedLanguageOutput:
        """Predicts tokens.

        Args:
            input_ids: (batch, tokens), int64.
            positions: (batch, p), which tokens of each sequence are to be predicted; all if None.
                Only these pass the head, as real pre-training does: it is a third of the cost.
            labels: the right tokens, of the shape of `positions`; −100 is not counted.
            attention_mask: (batch, tokens), True for tokens that may be attended to.
        """
        length = input_ids.shape[1]
        if length > self.config.max_length:
            raise InputError(
                f"input_ids: {length} tokens; allowed are at most {self.config.max_length}"
            )
        x = self.tokens(input_ids) + self.positions.weight[:length]
        x = self.embedding_norm(x)
        allowed = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        for layer in self.encoder:
            x = layer(x, allowed)
        x = self.norm(x)
        if positions is not None:
            x = x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        logits = self.decoder(self.transform_norm(F.gelu(self.transform(x))))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MaskedLanguageOutput(loss, logits)


def initialise(network: nn.Module, width: int) -> None:
    """The first weights of a network of encoder layers, as `Bert` says."""
    linear = EMBEDDING_STD * math.sqrt(PAPER_WIDTH / width)
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_STD)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=linear)
            nn.init.zeros_(module.bias)


def example(config: BertConfig, batch_size: int, length: int) -> dict[str, Tensor]:
    """A batch of the right shapes: zeros."""
    predicted = max(1, round(MASKED_SHARE * length))
    return {
        "input_ids": torch.zeros(batch_size, length, dtype=torch.long),
        "positions": torch.zeros(batch_size, predicted, dtype=torch.long),
        "labels": torch.zeros(batch_size, predicted, dtype=torch.long),
    }


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[Bert, dict[str, Tensor]]:
    config = BertConfig.preset(preset)
    config = config.scaled(rounded_width(share, config.width, UNIT))
    if length > config.max_length:
        config = dataclasses.replace(config, max_length=length)
    with weightless():
        return Bert(config), example(config, batch_size, length)


FAMILY = Family(
    presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset].width // UNIT
)
