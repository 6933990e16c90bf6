"""Image sets in their authors' formats, and classification of them."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from sparse_train import safe_pickle
from sparse_train.config import TrainConfig
from sparse_train.image_files import load_images, read_idx
from sparse_train.models._classifier import MODELS
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


def write_idx(folder, zipped=False, n=30):
    folder.mkdir(parents=True, exist_ok=True)
    opener, end = (gzip.open, ".gz") if zipped else (open, "")
    for part in ("train", "t10k"):
        pixels = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = RNG.integers(0, 10, n, dtype=np.uint8)
        with opener(folder / f"{part}-images-idx3-ubyte{end}", "wb") as file:
            file.write(bytes((0, 0, 8, 3)) + struct.pack(">3I", n, 28, 28) + pixels.tobytes())
        with opener(folder / f"{part}-labels-idx1-ubyte{end}", "wb") as file:
            file.write(bytes((0, 0, 8, 1)) + struct.pack(">I", n) + labels.tobytes())
    return pixels, labels


def test_cifar_comes_as_it_was_written_from_a_folder_and_from_the_archive(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    written = write_cifar10(folder)
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    for place in (folder, tmp_path, archive):
        found = load_images("cifar10", str(place))
        assert found.images.shape == (100, 3, 32, 32)
        assert (found.images[:20].reshape(20, -1) == written[0][0]).all()
        assert found.test_labels.tolist() == written[-1][1]
        # red comes first, row by row
        assert (found.images[0, 0, 0] == written[0][0][0, :32]).all()


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_comes_as_it_was_written(tmp_path, zipped):
    pixels, labels = write_idx(tmp_path, zipped)
    found = load_images("mnist", str(tmp_path))
    assert (found.test_images[:, 0] == pixels).all()
    assert (found.test_labels == labels).all()


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/nettime-was-here",)


@pytest.mark.parametrize(
    "value",
    [Bomb(), {b"data": Bomb()}, np.zeros(3, object), np.zeros(3, "f8"), {1: eval}],
)
def test_a_pickle_that_asks_for_more_than_values_is_refused(value, tmp_path):
    with pytest.raises(InputError, match="allowed are plain values and arrays of integers"):
        safe_pickle.loads(pickle.dumps(value, protocol=2), "it")
    assert not Path("/tmp/nettime-was-here").exists()


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(content):
    with contextlib.suppress(InputError):
        safe_pickle.loads(content, "it")


@given(st.integers(0, 2000))
@settings(deadline=None, max_examples=30)
def test_a_truncated_pickle_is_refused(keep):
    content = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1]}, protocol=2)
    with pytest.raises(InputError, match="it:"):
        safe_pickle.loads(content[: min(keep, len(content) - 1)], "it")


def test_a_malicious_cifar_batch_is_named_and_not_run(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"data_batch_3: asks for posix\.system"):
        load_images("cifar10", str(tmp_path))
    assert not Path("/tmp/nettime-was-here").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"data": np.zeros((2, 3000), np.uint8), b"labels": [0, 1]}, "3072"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "2 images and 1 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "allowed 0 to 9"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["a"]}, "not all integers"),
        ({b"labels": [0]}, "not an array"),
        ([1, 2], "a list"),
    ],
)
def test_a_wrong_cifar_batch_is_named(tmp_path, content, message):
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match=message):
        load_images("cifar10", str(tmp_path))


def test_an_archive_that_climbs_out_writes_nothing_and_one_without_the_files_is_named(tmp_path):
    archive = tmp_path / "in" / "cifar.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("../../data_batch_9")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(InputError, match="data_batch_1: not in the archive"):
        load_images("cifar10", str(archive))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar.tar.gz", "in"]
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(InputError, match=r"cifar\.tar\.gz"):
        load_images("cifar10", str(archive))


def test_a_zip_bomb_is_read_no_further_than_its_header_says(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    with gzip.open(path, "wb") as file:
        file.write(bytes((0, 0, 8, 3)) + struct.pack(">3I", 1, 28, 28))
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(InputError, match="more bytes where its header says 784"):
        read_idx(path, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\3" + bytes(12), "not an IDX file"),
        (b"\0\0\x08\3" + struct.pack(">3I", 2**31, 2**31, 8), "allowed are up to 256 MB"),
        (b"\0\0\x08\3" + struct.pack(">3I", 1, 2, 2) + b"abc", "has 3 bytes"),
    ],
)
def test_a_broken_idx_file_is_named(tmp_path, content, message):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(path, 3)


def test_a_set_that_is_not_there_says_where_it_was_looked_for_and_how_to_get_it(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETTIME_DATA", str(tmp_path / "mine"))
    with pytest.raises(InputError, match=r"mine/cifar10.*get https://www\.cs\.toronto\.edu"):
        load_images("cifar10")
    with pytest.raises(InputError, match=r"unknown data 'cifar'.*cifar10"):
        load_images("cifar")


def test_training_validation_and_test_images_are_three_sets(digits):
    parts = digits._parts
    rows = {name: {image.tobytes() for image in part[0]} for name, part in parts.items()}
    assert sum(len(part[1]) for part in parts.values()) == 1797
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
    n = len(digits._parts["train"][1])
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
