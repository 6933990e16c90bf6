"""Data files that are odd on purpose: one line each, nothing waited for, nothing large made."""

import os
import pickle
import tarfile
import tracemalloc

import numpy as np
import pytest
from _tiny_run import tiny, write_text

from hwsim import InputError
from sparse_train.data.gettext_catalogue import read_catalogue
from sparse_train.data.image_files import load_images
from sparse_train.data.ratings import load_ratings
from sparse_train.data.text import load_corpus
from sparse_train.record import TrainingRecord
from sparse_train.trainer import train

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pipes
@pytest.mark.parametrize(
    "read",
    [lambda p: load_corpus(str(p)), lambda p: load_ratings(str(p)),
     lambda p: load_images("cifar10", str(p.parent)), read_catalogue],
)  # fmt: skip
def test_pipes_are_refused_without_waiting(tmp_path, read):
    path = tmp_path / "x.csv"
    os.mkfifo(path)
    with pytest.raises(InputError):
        read(path)


def test_text_folders_with_names_that_are_not_utf8_are_trained_on(tmp_path):
    folder = write_text(tmp_path / "text")
    odd = os.fsencode(folder) + b"/\xff\xfe.txt"
    with open(odd, "wb") as file:  # noqa: PTH123
        file.write(b"some words more " * 20)
    corpus = load_corpus(str(folder))
    assert len(corpus.digest) == 32
    moved = os.fsencode(tmp_path) + b"/caf\xe9"
    os.rename(os.fsencode(folder), moved)  # noqa: PTH104
    record = train(tiny(os.fsdecode(moved), steps=4), tmp_path / "run")
    assert TrainingRecord.load(tmp_path / "run").config == record.config


CODECS = (
    "idna", "punycode", "utf-7", "unicode_escape", "base64", "rot13", "raw_unicode_escape",
    "undefined", "utf-16", "hex",
)  # fmt: skip


@pytest.mark.parametrize("charset", CODECS)
def test_odd_codecs_are_read_or_refused(tmp_path, charset):
    head = f'msgid ""\nmsgstr "charset={charset}\\n"\n'.encode()
    for tail in (b'msgid "a"\nmsgstr "b"\n', b"\xff" * 9, b"+2AA-", b"\\ud800", b"." * 300):
        (tmp_path / "x.po").write_bytes(head + tail)
        try:
            pairs = read_catalogue(tmp_path / "x.po")
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert all((a + b).encode() for a, b in pairs)


@pytest.mark.parametrize("label", [2**70, -1, 2**63, True])
def test_labels_beyond_any_class_are_one_line(tmp_path, label):
    part = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, label]}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (tmp_path / name).write_bytes(pickle.dumps(part, 2))
    with pytest.raises(InputError, match="labels"):
        load_images("cifar10", str(tmp_path))


def test_a_tar_header_of_gigabytes_is_refused_unread(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    path = tmp_path / "cifar-10-python.tar.gz"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(4 << 30)  # sparse: no disk is used
    tracemalloc.start()
    with pytest.raises(InputError, match="a header of"):
        load_images("cifar10", str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_quoted_fields_may_hold_commas(tmp_path):
    rows = [
        "userId,title,itemId,rating",
        '1,"Good, Bad and Ugly",7,4.5',
        '2,"Plain ""quoted""",7,3',
    ]
    (tmp_path / "ratings.csv").write_text("\n".join(rows))
    ratings = load_ratings(str(tmp_path / "ratings.csv"))
    assert ratings.ratings.tolist() == [4.5, 3.0]
    (tmp_path / "ratings.csv").write_text("\n".join([*rows, '3,"open,7,1']))
    with pytest.raises(InputError, match="line 4"):
        load_ratings(str(tmp_path / "ratings.csv"))


def test_ratings_no_float_holds_are_refused(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,itemId,rating\n1,2,1e300\n")
    with pytest.raises(InputError, match="line 2"):
        load_ratings(str(tmp_path / "ratings.csv"))


def test_the_library_is_read_without_what_is_installed_beside_it(monkeypatch):
    walked = []
    real = os.walk

    def noted(root):
        for folder, folders, names in real(root):
            walked.append(folder)
            yield folder, folders, names

    monkeypatch.setattr(os, "walk", noted)
    assert len(load_corpus().documents) > 100
    assert not [folder for folder in walked if "site-packages" in folder]


def test_image_statistics_need_little_memory():
    from sparse_train.data.image_files import ImageSet
    from sparse_train.tasks.images import Images, PreparedImages

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20_000, 3, 32, 32), np.uint8)
    labels = rng.integers(0, 10, 20_000)
    data = ImageSet("cifar10", 10, images, labels, images[:100], labels[:100])
    tracemalloc.start()
    made = PreparedImages(Images(data="cifar10"), data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.3 * images.nbytes  # beside the images; it was sixteen times as much
    train_images = made.data.images[made._parts["train"]] / 255
    assert made._mean.ravel() == pytest.approx(train_images.mean((0, 2, 3)))
    assert made._std.ravel() == pytest.approx(train_images.std((0, 2, 3)))
