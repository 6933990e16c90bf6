"""Image classification: digits at hand, MNIST, Fashion-MNIST and CIFAR where their files are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from hwsim.checks import check_integer
from hwsim.errors import InputError, unknown
from sparse_train import classifier
from sparse_train.data.image_files import DIGITS, ImageSet, load_images
from sparse_train.tasks._base import Batch, Task, stream
from sparse_train.tasks._classification import Classified

# First numbers of the keys of random streams, so that no two purposes share one.
_AUGMENTATION, _SPLIT = 2, 3  # 1 is ORDER of `_classification`
_VALIDATION_SHARE = 0.1
# Where the authors of a set gave no test split.
_TEST_SHARE, _SMALL_VALIDATION_SHARE = 0.2, 0.2
AUGMENTATIONS = ("none", "crop", "crop_flip")
_USUAL = {"cifar10": "crop_flip", "cifar100": "crop_flip", "fashion_mnist": "crop"}


@dataclass(frozen=True)
class Images(Task):
    """Settings of image classification.

    Attributes:
        data: "digits" (scikit-learn's 1,797 of 8 × 8), "mnist", "fashion_mnist", "cifar10" or
            "cifar100".
        path: folder or archive of the data's files; None looks where they usually are.
        augmentation: "none"; "crop": shifted by up to an eighth of the side, zeros from outside;
            "crop_flip": also mirrored, every second time; "usual": crop_flip for CIFAR, crop for
            Fashion-MNIST, none for the others.
        validation: look at so many of the validation images, where all of them are too dear; the
            others serve nothing. None looks at all.

    The validation set is a tenth of the training images, chosen once for all seeds; digits, which
    come without a test set, are split 60/20/20.
    """

    default_model: ClassVar[str] = "mlp"
    default_preset: ClassVar[str] = "small"

    data: str = DIGITS
    path: str | None = None
    augmentation: str = "usual"
    validation: int | None = None

    def __post_init__(self) -> None:
        if self.augmentation not in ("usual", *AUGMENTATIONS):
            raise InputError(unknown("augmentation", self.augmentation, ("usual", *AUGMENTATIONS)))
        for name in ("data", "path"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "path" and value is None):
                raise InputError(f"{name}: value is {value!r}; allowed is a text")
        if self.validation is not None:
            check_integer("validation", self.validation, 1)

    def prepare(self) -> PreparedImages:
        return PreparedImages(self, load_images(self.data, self.path))


class PreparedImages(Classified):
    """Images in memory as bytes; a batch is made of them step by step."""

    evaluation_batch: ClassVar[int] = 256

    def __init__(self, settings: Images, data: ImageSet) -> None:
        super().__init__()
        self.settings = settings
        self.data = data
        usual = _USUAL.get(settings.data, "none")
        self.augmentation = usual if settings.augmentation == "usual" else settings.augmentation
        self._parts = split_of(data)
        if settings.validation is not None:
            held, wanted = self._parts["validation"], settings.validation
            if wanted > len(held):
                raise InputError(
                    f"validation: value is {wanted}; allowed is at most {len(held)}, the "
                    f"validation images of data {data.name!r}"
                )
            self._parts["validation"] = held[:wanted]
        mean, std = _mean_and_std(data.images, self._parts["train"])
        self._mean, self._std = mean, np.maximum(std, 1e-3)

    @property
    def sizes(self) -> classifier.Sizes:
        """Of the images, and how many classes."""
        _, channels, height, width = self.data.images.shape
        return classifier.Sizes(channels, height, width, self.data.classes)

    @property
    def digest(self) -> str:
        # A path may differ between machines; what lies there is in the data's digest.
        # All of the validation images is what it was before they could be fewer.
        settings = {name: v for name, v in asdict(self.settings).items() if name != "path"}
        if settings["validation"] is None:
            del settings["validation"]
        text = json.dumps([settings, self.augmentation, self.data.digest], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "digest": self.digest, "data": self.data.name, "data_digest": self.data.digest,
            "augmentation": self.augmentation, "sizes": asdict(self.sizes),
            "images": {name: len(rows) for name, rows in self._parts.items()},
        }  # fmt: skip

    def build_model(self, model: str, preset: str, options: Mapping[str, Any]) -> nn.Module:
        return classifier.build(model, preset, options, self.sizes)

    def widths(self, model: str, preset: str, options: Mapping[str, Any]) -> int:
        return classifier.widths(model)

    def narrowed(
        self, model: str, preset: str, options: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        return {**options, classifier.WIDTH: share * options.get(classifier.WIDTH, 1.0)}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """images (batch, channels, height, width) float32, labels (batch,) int64; see `chosen`."""
        rows = self._parts["train"]
        of = "the number of training images"
        chosen = rows[self.chosen(step, batch_size, seed, len(rows), of)]
        pixels = self.data.images[chosen]
        if self.augmentation != "none":
            rng = stream(_AUGMENTATION, seed, step)
            pixels = _shifted(pixels, rng)
            if self.augmentation == "crop_flip":
                mirrored = rng.random(len(pixels)) < 0.5
                pixels[mirrored] = pixels[mirrored, :, :, ::-1]
        return self._tensors(pixels, self.data.labels[chosen])

    def examples(self, split: str) -> Batch:
        rows, (images, labels) = self._parts[split], self.data.of(split)
        return self._tensors(images[rows], labels[rows])

    def _tensors(self, pixels: np.ndarray, labels: np.ndarray) -> Batch:
        scaled = (pixels / 255 - self._mean) / self._std
        return {
            "images": torch.from_numpy(scaled.astype(np.float32)),
            "labels": torch.from_numpy(labels),
        }


def split_of(data: ImageSet) -> dict[str, np.ndarray]:
    """Training, validation and test images, by their place: the same for every seed.

    Test images lie apart where the data has some.
    """
    n = len(data.labels)
    order = stream(_SPLIT, n).permutation(n)
    parts: dict[str, np.ndarray] = {}
    if data.test_images is None or data.test_labels is None:
        n_test = round(_TEST_SHARE * n)
        parts["test"], order = order[:n_test], order[n_test:]
        n_validation = round(_SMALL_VALIDATION_SHARE * n)
    else:
        parts["test"] = np.arange(len(data.test_labels))
        n_validation = round(_VALIDATION_SHARE * n)
    if not 0 < n_validation < len(order):
        raise InputError(f"data {data.name!r}: {n} training images; allowed are at least 10")
    return {**parts, "validation": order[:n_validation], "train": order[n_validation:]}


def _mean_and_std(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each channel, values from 0 to 1, both (1, channels, 1, 1).

    Of the images `rows`. From how often each byte occurs, so that no copy of all images as numbers
    is made.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(rows), 512):
        some = images[rows[start : start + 512]]
        for c in range(channels):
            counts[c] += np.bincount(some[:, c].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    shape = (1, channels, 1, 1)
    return mean.reshape(shape), np.sqrt(variance).reshape(shape)


def _shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to an eighth of its side, with zeros from outside.

    Source: He et al. (2016), section 4.2: four pixels of 32.
    """
    n, _, height, width = images.shape
    pad = max(1, height // 8)
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    down, right = rng.integers(0, 2 * pad + 1, (2, n))
    moved = np.empty_like(images)
    for i in range(n):
        moved[i] = padded[i, :, down[i] : down[i] + height, right[i] : right[i] + width]
    return moved


TASK = Images
