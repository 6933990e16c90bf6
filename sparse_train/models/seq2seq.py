"""An encoder-decoder transformer for translation."""

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
from sparse_train.models.bert import Attention, BertConfig, EncoderLayer
from sparse_train.weightless import weightless

_NEVER = -math.inf


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes of the model.

    Attributes:
        vocabulary: tokens, shared by both languages.
        max_length: positions with an embedding, on either side.
        encoder_layers, decoder_layers: how many.
        width, heads, ffn: model width, attention heads, inner width of the feed-forward part.
        padding: the token that fills up sequences; it is not attended to and not learnt.
    """

    vocabulary: int = 32000
    max_length: int = 256
    encoder_layers: int = 6
    decoder_layers: int = 6
    width: int = 512
    heads: int = 8
    ffn: int = 2048
    padding: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "padding" else 1
            check_integer(field.name, value, least)
        if self.width % self.heads:
            raise InputError(f"heads: value is {self.heads}; allowed is a divisor of {self.width}")
        if self.padding >= self.vocabulary:
            raise InputError(
                f"padding: value is {self.padding}; allowed is below the vocabulary, "
                f"{self.vocabulary}"
            )

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Seq2SeqConfig:
        """One of PRESETS, some of its sizes replaced."""
        if name not in PRESETS:
            raise InputError(unknown("seq2seq preset", name, tuple(PRESETS)))
        fields = tuple(f.name for f in dataclasses.fields(cls))
        for key in overrides:
            if key not in fields:
                raise InputError(unknown("seq2seq size", key, fields))
        return dataclasses.replace(PRESETS[name], **overrides)

    def scaled(self, width: int) -> Seq2SeqConfig:
        """See `BertConfig.scaled`."""
        layer = self.layer.scaled(width)
        return dataclasses.replace(self, width=width, ffn=layer.ffn, heads=layer.heads)

    @property
    def layer(self) -> BertConfig:
        """The sizes that a layer needs, as BERT's layers take them."""
        return BertConfig(width=self.width, heads=self.heads, ffn=self.ffn)


# Widths are multiples of it.
UNIT = 8
# base: Vaswani et al. (2017), table 3; tiny, mini: ours.
PRESETS = {
    "tiny": Seq2SeqConfig(4096, 64, 2, 2, 128, 4, 512),
    "mini": Seq2SeqConfig(8192, 128, 3, 3, 256, 4, 1024),
    "base": Seq2SeqConfig(),
}


class Seq2SeqOutput(NamedTuple):
    """logits (batch, target tokens, vocabulary); loss is a scalar, None without labels."""

    loss: Tensor | None
    logits: Tensor


class CrossAttention(nn.Module):
    """Attention of the decoder to the encoder's output."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, memory: Tensor, allowed: Tensor) -> Tensor:
        """x (batch, target, width), memory (batch, source, width) → (batch, target, width)."""
        q, k, v = (
            layer(given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, given in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.output(mixed.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, feed-forward part: each after a LayerNorm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.cross_norm = nn.LayerNorm(config.width)
        self.cross = CrossAttention(config)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.ffn)
        self.down = nn.Linear(config.ffn, config.width)

    def forward(self, x: Tensor, memory: Tensor, past: Tensor, source: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), past)
        x = x + self.cross(self.cross_norm(x), memory, source)
        return x + self.down(F.relu(self.up(self.ffn_norm(x))))


class Seq2Seq(nn.Module):
    """Encoder and decoder with one embedding for both languages and the output.

    Pre-LN, learnt positions, GELU in the encoder; the paper's are post-LN, sinusoids, ReLU.
    Weights start as Glorot's, biases as 0, embeddings as N(0, 1/width), and what is looked up is
    multiplied by √width: small weights would leave attention flat for hundreds of steps.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3, the factor in 3.4; Glorot
    and Bengio 2010, equation 16.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.source_positions = nn.Embedding(config.max_length, config.width)
        self.target_positions = nn.Embedding(config.max_length, config.width)
        self.encoder = nn.ModuleList(
            EncoderLayer(config.layer) for _ in range(config.encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(config.width)
        self.decoder = nn.ModuleList(
            DecoderLayer(config.layer) for _ in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.vocabulary)
        # What a position may not look at gets −∞ for a score.
        later = torch.full((config.max_length, config.max_length), _NEVER).triu(1)
        self.register_buffer("later", later, persistent=False)
        self.apply(_initialise)
        self.output.weight = self.tokens.weight

    def forward(
        self,
        source_ids: Tensor,
        target_ids: Tensor,
        source_mask: Tensor,
        labels: Tensor | None = None,
    ) -> Seq2SeqOutput:
        """Predicts each next token of the target.

        Args:
            source_ids: (batch, source tokens), int64, filled up with `padding` at the end.
            target_ids: (batch, target tokens): what the decoder has seen.
            source_mask: `padding_mask` of the source.
            labels: the tokens that follow, of the same shape; `padding` is not counted.
        """
        logits = self.decode(target_ids, self.encode(source_ids, source_mask), source_mask)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=self.config.padding
            )
        return Seq2SeqOutput(loss, logits)

    def encode(self, source_ids: Tensor, source_mask: Tensor) -> Tensor:
        """Memory, (batch, source, width)."""
        x = self._embedded(source_ids, self.source_positions)
        for layer in self.encoder:
            x = layer(x, source_mask)
        return self.encoder_norm(x)

    def decode(self, target_ids: Tensor, memory: Tensor, source_mask: Tensor) -> Tensor:
        """Logits (batch, target, vocabulary) of the token after each prefix of the target."""
        length = target_ids.shape[1]
        x = self._embedded(target_ids, self.target_positions)
        for layer in self.decoder:
            x = layer(x, memory, self.later[:length, :length], source_mask)
        return self.output(self.decoder_norm(x))

    @torch.no_grad()
    def translate(self, source_ids: Tensor, begin: int, end: int, most: int) -> Tensor:
        """Greedy decoding: (batch, at most `most`) tokens, `padding` after `end`."""
        mask = padding_mask(source_ids, self.config.padding)
        memory = self.encode(source_ids, mask)
        made = torch.full((len(source_ids), 1), begin)
        open_ = torch.ones(len(source_ids), dtype=torch.bool)
        for _ in range(min(most, self.config.max_length)):
            rows = open_.nonzero().flatten()
            logits = self.decode(made[rows], memory[rows], mask[rows])[:, -1]
            chosen = torch.full((len(made),), self.config.padding)
            chosen[rows] = logits.argmax(-1)
            made = torch.cat([made, chosen[:, None]], 1)
            open_ = open_ & (chosen != end)
            if not bool(open_.any()):
                break
        return made[:, 1:]

    def _embedded(self, ids: Tensor, positions: nn.Embedding) -> Tensor:
        length = ids.shape[1]
        if length > self.config.max_length:
            raise InputError(f"{length} tokens; allowed are at most {self.config.max_length}")
        return math.sqrt(self.config.width) * self.tokens(ids) + positions.weight[:length]


def padding_mask(source_ids: Tensor, padding: int) -> Tensor:
    """(batch, 1, 1, source) float32: 0 for tokens that may be attended to, −∞ for padding."""
    empty = torch.zeros(source_ids.shape).masked_fill_(source_ids == padding, _NEVER)
    return empty[:, None, None, :]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _build(
    preset: str, batch_size: int, length: int, share: float
) -> tuple[Seq2Seq, dict[str, Tensor]]:
    config = Seq2SeqConfig.preset(preset)
    config = config.scaled(rounded_width(share, config.width, UNIT))
    if length > config.max_length:
        config = dataclasses.replace(config, max_length=length)
    ids = torch.ones(batch_size, length, dtype=torch.long)
    with weightless():
        mask = torch.zeros(batch_size, 1, 1, length)
        model = Seq2Seq(config)
    return model, {"source_ids": ids, "target_ids": ids, "source_mask": mask, "labels": ids}


FAMILY = Family(
    presets=tuple(PRESETS), build=_build, widths=lambda preset: PRESETS[preset].width // UNIT
)
