"""Image networks for any image size, number of channels and classes, with their loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.checks import check_number
from hwsim.errors import InputError, unknown

# Of a preset, by what its widths are multiplied.
WIDTH = "width_factor"
# How many factors are told apart; those of simple_cnn keep its layers in proportion.
_WIDTHS = {"simple_cnn": 16}


class ClassifierOutput(NamedTuple):
    """logits (batch, classes); loss is a scalar, None without labels."""

    loss: Tensor | None
    logits: Tensor


class ImageClassifier(nn.Module):
    """A network on images, with cross-entropy."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor | None = None) -> ClassifierOutput:
        """Classifies.

        Args:
            images: (batch, channels, height, width), float.
            labels: (batch,), int64.
        """
        logits = self.network(images)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ClassifierOutput(loss, logits)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the data say of a network's ends."""

    channels: int
    height: int
    width: int
    classes: int


def build(model: str, preset: str, options: Mapping[str, Any], sizes: Sizes) -> ImageClassifier:
    """A new classifier.

    Args:
        model: one of MODELS.
        preset: of that model's.
        options: `width_factor`, by which all inner widths are multiplied.

    Raises:
        InputError: an unknown name, or a factor that is no positive number.
    """
    if model not in MODELS:
        raise InputError(unknown("model", model, tuple(MODELS)))
    for name in options:
        if name != WIDTH:
            raise InputError(unknown(f"option of model {model}", name, (WIDTH,)))
    factor = options.get(WIDTH, 1.0)
    check_number(WIDTH, factor, above=0)
    return ImageClassifier(MODELS[model](preset, float(factor), sizes))


def widths(model: str) -> int:
    """How many widths a model can be narrowed to."""
    return _WIDTHS.get(model, 64)


def _of(presets: Mapping[str, Any], model: str, preset: str) -> Any:
    if preset not in presets:
        raise InputError(unknown(f"{model} preset", preset, tuple(presets)))
    return presets[preset]


def _scaled(width: int, factor: float, multiple: int = 1) -> int:
    return max(multiple, multiple * round(width * factor / multiple))


def _mlp(preset: str, factor: float, sizes: Sizes) -> nn.Module:
    from sparse_train.models.mlp import PRESETS, Mlp

    inner = (_scaled(width, factor) for width in _of(PRESETS, "mlp", preset)[1:-1])
    pixels = sizes.channels * sizes.height * sizes.width
    return nn.Sequential(nn.Flatten(), Mlp((pixels, *inner, sizes.classes)))


def _simple_cnn(preset: str, factor: float, sizes: Sizes) -> nn.Module:
    from sparse_train.models.simple_cnn import PRESETS, SimpleCnn

    a, b, c, d = (_scaled(width, factor) for width in _of(PRESETS, "simple_cnn", preset))
    return SimpleCnn((a, b, c, d), sizes.classes, sizes.channels)


def _resnet(preset: str, factor: float, sizes: Sizes) -> nn.Module:
    from sparse_train.models.resnet import PRESETS, ResNet

    blocks = _of(PRESETS, "resnet", preset)
    return ResNet(blocks, sizes.classes, _scaled(64, factor), sizes.channels)


def _wide_resnet(preset: str, factor: float, sizes: Sizes) -> nn.Module:
    from sparse_train.models.wide_resnet import PRESETS, WideResNet

    depth, widening = _of(PRESETS, "wide_resnet", preset)
    return WideResNet(depth, widening * factor, sizes.classes, sizes.channels)


def _vit(preset: str, factor: float, sizes: Sizes) -> nn.Module:
    from sparse_train.models.vit import PRESETS, Vit

    config = _of(PRESETS, "vit", preset)
    side = sizes.height
    if sizes.width != side:
        raise InputError(f"model vit: images are {side} × {sizes.width}; allowed are square ones")
    # A patch is what it is of the preset's image, but divides this one, in four tokens at least.
    wished = min(config.patch * side / config.image, side // 2)
    patch = min((p for p in range(1, side) if side % p == 0), key=lambda p: abs(p - wished))
    return Vit(
        dataclasses.replace(
            config, image=side, patch=patch, channels=sizes.channels, classes=sizes.classes,
            width=_scaled(config.width, factor, config.heads),
            ffn=_scaled(config.ffn, factor),
        )
    )  # fmt: skip


MODELS: dict[str, Callable[[str, float, Sizes], nn.Module]] = {
    "mlp": _mlp, "simple_cnn": _simple_cnn, "resnet": _resnet, "wide_resnet": _wide_resnet,
    "vit": _vit,
}  # fmt: skip
