"""Classification of images: batches, splits, augmentation, models."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from sparse_train.classifier import MODELS
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task
from sparse_train.trainer import train

pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits():
    return make_task("images", {}).prepare()


def write_cifar10(folder, per_batch=20):
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = RNG.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        labels = RNG.integers(0, 10, per_batch).tolist()
        content = {b"data": pixels, b"labels": labels, b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        written.append((pixels, labels))
    return written


def test_training_validation_and_test_images_are_three_sets(digits):
    parts = {name: digits.examples(name) for name in ("train", "validation", "test")}
    rows = {
        name: {image.numpy().tobytes() for image in part["images"]} for name, part in parts.items()
    }
    assert sum(len(part["labels"]) for part in parts.values()) == 1797
    repeated = 1797 - sum(len(r) for r in rows.values())
    assert repeated < 5  # a few digits are there twice
    assert not rows["train"] & rows["test"]
    assert not rows["train"] & rows["validation"]


@given(st.integers(1, 60), st.integers(0, 3))
@settings(deadline=None, max_examples=20)
def test_a_batch_depends_on_step_and_seed_alone(step, seed):
    one, other = (make_task("images", {}).prepare().batch(step, 64, seed) for _ in range(2))
    assert torch.equal(one["images"], other["images"])
    assert torch.equal(one["labels"], other["labels"])


def test_an_epoch_shows_every_image_once(digits):
    n = digits.describe()["images"]["train"]
    size = 7
    seen = [digits.batch(step, size, 0)["images"] for step in range(1, n // size + 1)]
    rows = {image.numpy().tobytes() for batch in seen for image in batch}
    assert len(rows) >= (n // size) * size - 5


def test_augmented_images_are_shifted_ones_and_evaluation_is_not_augmented(tmp_path):
    write_cifar10(tmp_path)
    plain, moved = (
        make_task("images", {"data": "cifar10", "path": str(tmp_path), "augmentation": a}).prepare()
        for a in ("none", "usual")
    )
    assert moved.augmentation == "crop_flip"
    assert not torch.equal(plain.batch(1, 8, 0)["images"], moved.batch(1, 8, 0)["images"])
    for a, b in zip(plain.evaluation_batches(), moved.evaluation_batches(), strict=True):
        assert torch.equal(a["images"], b["images"])
    assert plain.digest != moved.digest


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_every_model_fits_small_and_large_images_and_narrows(digits, model, factor):
    from importlib import import_module

    preset = next(iter(import_module(f"sparse_train.models.{model}").PRESETS))
    network = digits.build_model(model, preset, {"width_factor": factor})
    batch = digits.batch(1, 4, 0)
    assert network(**batch).logits.shape == (4, 10)
    whole = digits.build_model(model, preset, {})
    sizes = [sum(p.numel() for p in m.parameters()) for m in (network, whole)]
    assert sizes[0] == sizes[1] if factor == 1 else sizes[0] < sizes[1] / 2


def test_measure_over_all_batches_is_what_evaluate_says(digits):
    model = digits.build_model("mlp", "small", {}).eval()
    batches = digits.evaluation_batches()
    weights = np.array([len(b["labels"]) for b in batches])
    found = [digits.measure(model, b) for b in batches]
    for name, value in digits.evaluate(model).items():
        parts = np.array([float(f[name].detach()) for f in found])
        assert value == pytest.approx((parts * weights).sum() / weights.sum(), rel=1e-5)


def test_a_sparse_network_learns_the_digits(tmp_path):
    record = train(
        TrainConfig(
            task="images", algorithm="rigl", density=0.2, update_interval=20, steps=200,
            batch_size=64, learning_rate=5e-3, warmup_steps=10, threads=1, test=True,
        ),
        tmp_path / "run",
    )  # fmt: skip
    assert record.test["accuracy"] > 0.9
    assert record.evaluations.columns == ["step", "loss", "accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": "cutout"}, "unknown augmentation"),
        ({"data": "digits", "path": "x"}, "allowed with data 'digits' is none"),
        ({"data": 3}, "data: value is 3"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_task("images", options).prepare()


@pytest.mark.parametrize(
    ("model", "preset", "options", "message"),
    [
        ("bert", "tiny", {}, "unknown model 'bert'"),
        ("mlp", "huge", {}, "unknown mlp preset"),
        ("mlp", "small", {"width_factor": 0}, "above 0"),
        ("mlp", "small", {"width": 3}, "unknown option"),
    ],
)
def test_wrong_models_are_refused(digits, model, preset, options, message):
    with pytest.raises(InputError, match=message):
        digits.build_model(model, preset, options)


def test_a_batch_larger_than_the_data_is_refused(digits):
    with pytest.raises(InputError, match="batch_size"):
        digits.batch(1, 5000, 0)
