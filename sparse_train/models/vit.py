"""A vision transformer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_train.models._family import Family, rounded_width
from sparse_train.models.bert import BertConfig, EncoderLayer
from sparse_train.weightless import weightless


@dataclass(frozen=True)
class VitConfig:
    """Sizes: encoder layers, width, heads and inner width as in BERT; image and patch in pixels;
    colour channels."""

    layers: int
    width: int
    heads: int
    ffn: int
    image: int = 224
    patch: int = 16
    classes: int = 1000
    channels: int = 3


# micro, tiny: ours, for small images; small: Touvron et al. (2021), DeiT, table 1; base, large:
# Dosovitskiy et al. (2021), table 1.
PRESETS = {
    "micro": VitConfig(2, 64, 4, 128, image=32, patch=8, classes=10),
    "tiny": VitConfig(4, 64, 4, 128, image=32, patch=4, classes=10),
    "small": VitConfig(12, 384, 6, 1536),
    "base": VitConfig(12, 768, 12, 3072),
    "large": VitConfig(24, 1024, 16, 4096),
}


class Vit(nn.Module):
    """(batch, channels, image, image) → (batch, classes).

    Patches through one convolution, a class token, learnt positions, pre-LN encoder layers, a
    linear layer on the class token.

    Source: Dosovitskiy et al. (2021), "An image is worth 16 × 16 words", section 3.1.
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        encoder = BertConfig(
            layers=config.layers, width=config.width, heads=config.heads, ffn=config.ffn
        )
        patches = (config.image // config.patch) ** 2
        self.patches = nn.Conv2d(config.channels, config.width, config.patch, config.patch)
        self.token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.randn(1, patches + 1, config.width) * 0.02)
        self.encoder = nn.ModuleList(EncoderLayer(encoder) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # (batch, patches, width)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        for layer in self.encoder:
            tokens = layer(tokens, None)
        return self.head(self.norm(tokens[:, 0]))


def _build(preset: str, batch_size: int, length: int, share: float) -> tuple[Vit, Tensor]:
    config = PRESETS[preset]
    width = rounded_width(share, config.width, config.heads)
    ffn = rounded_width(share, config.ffn, 1)
    config = dataclasses.replace(config, width=width, ffn=ffn)
    with weightless():
        return Vit(config), torch.empty(batch_size, config.channels, config.image, config.image)


FAMILY = Family(
    presets=tuple(PRESETS),
    build=_build,
    widths=lambda preset: PRESETS[preset].width // PRESETS[preset].heads,
)
