"""Image data sets in their authors' formats: read right, and refused where they are not right."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from sparse_train.data import safe_pickle
from sparse_train.data.image_files import load_images, read_idx

RNG = np.random.default_rng(0)


def cifar_part(n=6, key=b"labels", classes=10, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).tolist()
    return {
        b"batch_label": b"made here", key: labels, b"filenames": [b"a.png"] * n,
        b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
    }  # fmt: skip


def write_cifar10(folder, protocol=2):
    folder.mkdir(parents=True)
    for i, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        (folder / name).write_bytes(pickle.dumps(cifar_part(seed=i), protocol))
    return folder


def idx(array):
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def write_mnist(folder, n=6, packed=False):
    folder.mkdir(parents=True)
    for part, count in (("train", n), ("t10k", n // 2)):
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for name, array in (
            (f"{part}-images-idx3-ubyte", images),
            (f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10),
        ):
            content = gzip.compress(idx(array)) if packed else idx(array)
            (folder / (name + ".gz" * packed)).write_bytes(content)
    return folder


def test_digits_are_1797_images_of_8_by_8_in_ten_classes():
    data = load_images("digits")
    assert data.images.shape == (1797, 1, 8, 8)
    assert np.bincount(data.labels).min() > 170
    assert data.images.max() == 255
    assert data.test_images is None


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_cifar10_pickles_give_the_arrays_back(tmp_path, protocol):
    data = load_images("cifar10", str(write_cifar10(tmp_path / "c", protocol)))
    wanted = np.concatenate([cifar_part(seed=i)[b"data"] for i in range(5)])
    assert np.array_equal(data.images.reshape(30, 3072), wanted)
    wanted_labels = [label for i in range(5) for label in cifar_part(seed=i)[b"labels"]]
    assert data.labels.tolist() == wanted_labels
    assert data.test_images is not None
    assert len(data.test_images) == 6


def test_cifar_archive_and_its_folder_are_the_same_set(tmp_path):
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    read = [load_images("cifar10", str(p)).digest for p in (folder, archive, tmp_path)]
    assert len(set(read)) == 1


def test_cifar100_is_read_by_its_fine_labels(tmp_path):
    for name in ("train", "test"):
        part = cifar_part(8, b"fine_labels", 100)
        (tmp_path / name).write_bytes(pickle.dumps(part, 2))
    data = load_images("cifar100", str(tmp_path))
    assert (data.classes, data.labels.tolist()) == (100, part[b"fine_labels"])


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    folder = write_cifar10(tmp_path / "c")
    target = tmp_path / "made by the pickle"
    bad = pickle.dumps({b"data": Malicious(str(target))})
    (folder / "data_batch_1").write_bytes(bad)
    with pytest.raises(InputError, match=r"data_batch_1: asks for .*mkdir"):
        load_images("cifar10", str(folder))
    assert not target.exists()
    pickle.loads(bad)
    assert target.exists()  # so the pickle was a real one


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray\n((I1000000000000\ntR.",  # memory for a trillion values
        b"\x80\x02]r\xff\xff\xff\xff.",  # a memo of four thousand million places
        b"",
        b"\x80\x02}q\x00(U\x04data",
    ],
)
def test_pickle_of_anything_but_plain_values_is_an_input_error(content):
    with pytest.raises(InputError, match=r"^here: "):
        safe_pickle.loads(content, "here")


def test_array_of_objects_in_a_pickle_is_refused():
    with pytest.raises(InputError, match="array of type"):
        safe_pickle.loads(pickle.dumps(np.array([1, "a"], dtype=object)), "here")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.sampled_from([np.uint8, np.int64]), st.integers(0, 4))
def test_plain_values_and_integer_arrays_come_back_as_they_were(n, kind, protocol):
    array = np.arange(2 * n, dtype=kind).reshape(2, n)
    content = {b"a": array, b"b": [1, b"x"], b"c": 2.5}
    back = safe_pickle.loads(pickle.dumps(content, protocol), "here")
    assert np.array_equal(back[b"a"], array)
    assert back[b"a"].dtype == kind
    assert (back[b"b"], back[b"c"]) == ([1, b"x"], 2.5)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_cut_or_changed_pickle_is_an_input_error_or_plain(data):
    whole = pickle.dumps(cifar_part(1), 2)
    at = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InputError):
        safe_pickle.loads(whole[:at], "here")
    changed = bytearray(whole)
    changed[at] = data.draw(st.integers(0, 255))
    try:
        safe_pickle.loads(bytes(changed), "here")
    except InputError as error:
        assert str(error).startswith("here: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({b"data": np.zeros((6, 3071), np.uint8)}, "3072"),
        ({b"data": np.zeros((6, 3072), np.int64)}, "bytes"),
        ({b"data": [1, 2]}, "bytes"),
        ({b"labels": [0] * 5}, "6 images and 5 labels"),
        ({b"labels": [10] * 6}, "labels from 10 to 10"),
        ({b"labels": ["a"] * 6}, "integers"),
    ],
)
def test_cifar_file_of_other_content_says_what_is_wrong(tmp_path, change, words):
    folder = write_cifar10(tmp_path / "c")
    (folder / "data_batch_2").write_bytes(pickle.dumps({**cifar_part(), **change}, 2))
    with pytest.raises(InputError, match=f"data_batch_2.*{words}"):
        load_images("cifar10", str(folder))


def test_archive_that_climbs_out_writes_nothing_and_lacks_its_members(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("../../climbed")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    before = sorted(tmp_path.parent.rglob("climbed"))
    with pytest.raises(InputError, match="not in the archive"):
        load_images("cifar10", str(archive))
    assert sorted(tmp_path.parent.rglob("climbed")) == before


def test_archive_member_of_a_gigabyte_is_refused_before_it_is_read(tmp_path):
    archive = tmp_path / "bomb.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("data_batch_1")
        info.size = 1 << 30
        tar.fileobj.write(info.tobuf())  # the header alone: its size is refused first
    with pytest.raises(InputError, match="larger than 256 MB"):
        load_images("cifar10", str(archive))


def test_truncated_archive_is_an_input_error(tmp_path):
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(InputError, match="not a readable archive"):
        load_images("cifar10", str(archive))


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_idx_files_gzipped_or_not(tmp_path, packed):
    data = load_images("mnist", str(write_mnist(tmp_path / "m", packed=packed)))
    assert data.images.shape == (6, 1, 28, 28)
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.test_images is not None
    assert data.test_images.shape == (3, 1, 28, 28)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x02ab", "not an IDX file of bytes"),
        (b"\0\0\x08\x01\0\0\0\x03ab", "has 2 bytes where its header says 3"),
        (b"\0\0\x08\x01\0\0\0\x01ab", "has more bytes where its header says 1"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "256 MB"),
    ],
)
def test_idx_file_that_is_not_what_its_header_says_is_refused(tmp_path, content, words):
    path = tmp_path / "x-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_idx(path, 1)


def test_gzip_bomb_is_read_no_further_than_its_header_says(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x02" + bytes(30_000_000)))
    with pytest.raises(InputError, match="more bytes"):
        read_idx(path, 1)


def test_labels_that_do_not_match_their_images_are_refused(tmp_path):
    folder = write_mnist(tmp_path / "m")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(InputError, match="6 images and 5 labels"):
        load_images("mnist", str(folder))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_missing_set_says_where_it_looked_and_how_to_get_it(tmp_path, name):
    with pytest.raises(InputError, match=r"looked in .*nothing.*get .*option path"):
        load_images(name, str(tmp_path / "nothing"))


def test_unknown_set_lists_the_known_ones():
    with pytest.raises(InputError, match="digits, cifar10, cifar100, mnist, fashion_mnist"):
        load_images("imagenet")


def test_the_real_fashion_mnist_is_read_where_it_is_installed():
    """Debian's package dataset-fashion-mnist, or NETTIME_DATA/fashion_mnist."""
    try:
        data = load_images("fashion_mnist", None)
    except InputError as error:
        pytest.skip(str(error))
    assert data.test_images is not None and data.test_labels is not None
    assert data.images.shape == (60_000, 1, 28, 28)
    assert data.test_images.shape == (10_000, 1, 28, 28)
    for labels, each in ((data.labels, 6000), (data.test_labels, 1000)):
        assert np.bincount(labels).tolist() == [each] * 10
    assert data.digest == "f894b4f9c5ad48b07b7683eda5d3502b"
