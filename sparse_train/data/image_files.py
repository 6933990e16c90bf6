"""Image data sets in the files their authors give out, read into arrays."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import InputError, unknown
from sparse_train.data import safe_pickle
from sparse_train.data.safe_files import opened_regular, read_bytes

DIGITS = "digits"
# More than any file of these sets has, so that an archive cannot fill the memory.
_LARGEST_FILE_BYTES = 256 << 20
_MOST_LABELS = 1 << 20


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 (n, channels, height, width) and labels int64 (n,), for training and for test.

    `test` is None where the authors gave no split: the reader of the set makes one.
    """

    name: str
    classes: int
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray | None
    test_labels: np.ndarray | None

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of which a split's rows are numbers: test ones may lie apart."""
        if split == "test" and self.test_images is not None and self.test_labels is not None:
            return self.test_images, self.test_labels
        return self.images, self.labels

    @cached_property
    def digest(self) -> str:
        """Of all images and labels."""
        hashed = hashlib.blake2b(digest_size=16)
        for array in (self.images, self.labels, self.test_images, self.test_labels):
            if array is not None:
                hashed.update(repr((array.shape, array.dtype.str)).encode())
                hashed.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return hashed.hexdigest()


@dataclass(frozen=True)
class _Source:
    """Where a set's files are looked for, and how they can be had."""

    folders: tuple[str, ...]
    how: str
    read: Callable[[Path], ImageSet | None]


def load_images(name: str, path: str | None = None) -> ImageSet:
    """A data set by name.

    Args:
        name: "digits" (scikit-learn's, always there), "cifar10", "cifar100", "mnist" or
            "fashion_mnist".
        path: the folder that holds its files, or CIFAR's archive. None looks in `data/<name>`
            under the working directory and in NETTIME_DATA, and where packages put it.

    Raises:
        InputError: an unknown name; files that are not there (the error says which, where they
            were looked for and how to get them); files that are broken or not what they should be.
    """
    if name == DIGITS:
        if path is not None:
            raise InputError(f"path: value is {path!r}; allowed with data 'digits' is none")
        return _digits()
    if name not in _SOURCES:
        raise InputError(unknown("data", name, (DIGITS, *_SOURCES)))
    source = _SOURCES[name]
    places = [Path(path)] if path is not None else _places(name, source)
    for place in places:
        found = source.read(place)
        if found is not None:
            return found
    looked = ", ".join(str(place) for place in places)
    raise InputError(f"data {name!r}: not found (looked in {looked}); {source.how}")


def _places(name: str, source: _Source) -> list[Path]:
    roots = [Path("data")]
    if "NETTIME_DATA" in os.environ:
        roots.append(Path(os.environ["NETTIME_DATA"]))
    return [root / name for root in roots] + [Path(folder) for folder in source.folders]


def _digits() -> ImageSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "data 'digits': scikit-learn, which holds them, is not installed; install it with: "
            "pip install 'nettime[tasks]'"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageSet(DIGITS, 10, images, np.asarray(labels, np.int64), None, None)


# ── CIFAR ──
_CIFAR10 = (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), b"labels", 10)
_CIFAR100 = (("train",), ("test",), b"fine_labels", 100)


def _cifar(name: str, archive: str, folder: str) -> Callable[[Path], ImageSet | None]:
    """A reader of the "python version": a folder of pickles, or the tar.gz that holds it.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    train, test, key, classes = _CIFAR10 if name == "cifar10" else _CIFAR100

    def read(place: Path) -> ImageSet | None:
        if place.is_file():
            get = _from_archive(place)
        else:
            holds = [p for p in (place, place / folder) if (p / train[0]).is_file()]
            if holds:
                get = _from_folder(holds[0])
            elif (place / archive).is_file():
                get = _from_archive(place / archive)
            else:
                return None
        images, labels = _cifar_part(get, train, key, classes)
        return ImageSet(name, classes, images, labels, *_cifar_part(get, test, key, classes))

    return read


def _from_folder(folder: Path) -> Callable[[str], tuple[bytes, str]]:
    def get(name: str) -> tuple[bytes, str]:
        path = folder / name
        try:
            if path.stat().st_size > _LARGEST_FILE_BYTES:
                raise InputError(f"{path}: larger than {_LARGEST_FILE_BYTES >> 20} MB")
            return read_bytes(path, limit_bytes=_LARGEST_FILE_BYTES, unpack=False), str(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None

    return get


class _Member(tarfile.TarInfo):
    """A member of an archive whose own headers are of bounded size: they are read whole."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and self.size > _LARGEST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


_LARGEST_HEADER_BYTES = 1 << 20
_HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE,
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


def _from_archive(path: Path) -> Callable[[str], tuple[bytes, str]]:
    """Reads members by the end of their name; nothing is unpacked, so no path can climb out."""

    def get(name: str) -> tuple[bytes, str]:
        where = f"{path}: {name}"
        try:
            with (
                opened_regular(path) as raw,
                tarfile.open(fileobj=raw, mode="r:*", tarinfo=_Member) as archive,
            ):
                for member in archive:
                    if member.isfile() and Path(member.name).name == name:
                        if member.size > _LARGEST_FILE_BYTES:
                            raise InputError(f"{where}: larger than {_LARGEST_FILE_BYTES >> 20} MB")
                        file = archive.extractfile(member)
                        assert file is not None
                        return file.read(), where
        except (
            tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError,
            OverflowError,
        ) as error:  # fmt: skip
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: not a readable archive ({error})") from None
        raise InputError(f"{where}: not in the archive")

    return get


def _cifar_part(
    get: Callable[[str], tuple[bytes, str]], names: Sequence[str], key: bytes, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for name in names:
        content, where = get(name)
        part = safe_pickle.loads(content, where)
        pixels, own = _cifar_fields(part, key, where)
        _check_labels(own, len(pixels), classes, where)
        images.append(pixels.reshape(-1, 3, 32, 32))
        labels.append(own)
    return np.concatenate(images), np.concatenate(labels)


def _cifar_fields(part: Any, key: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(part, dict):
        raise InputError(f"{where}: holds a {type(part).__name__}; allowed is a dictionary")
    pixels = part.get(b"data", part.get("data"))
    labels = part.get(key, part.get(key.decode()))
    shape = getattr(pixels, "shape", None)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise InputError(f"{where}: data is not an array (n, 3072) of bytes")
    if pixels.shape[1] != 3072 or not isinstance(labels, list):
        raise InputError(f"{where}: data is {shape}, allowed is (n, 3072), with a list of labels")
    if not all(type(label) is int and 0 <= label < _MOST_LABELS for label in labels):
        raise InputError(f"{where}: labels are not all integers from 0 to {_MOST_LABELS - 1}")
    return pixels, np.asarray(labels, dtype=np.int64)


# ── IDX ──
_IDX_PARTS = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def _idx(name: str) -> Callable[[Path], ImageSet | None]:
    """A reader of MNIST's four files, as they are or gzipped.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", file formats.
    """

    def read(place: Path) -> ImageSet | None:
        if _idx_path(place, _IDX_PARTS[0][0]) is None:
            return None
        parts = []
        for images, labels in _IDX_PARTS:
            pixels, where = read_idx(_needed(place, images), 3), place / images
            own = read_idx(_needed(place, labels), 1).astype(np.int64)
            _check_labels(own, len(pixels), 10, str(where))
            parts += [pixels[:, None], own]
        return ImageSet(name, 10, *parts)

    return read


def _idx_path(place: Path, name: str) -> Path | None:
    return next((p for p in (place / name, place / f"{name}.gz") if p.is_file()), None)


def _needed(place: Path, name: str) -> Path:
    path = _idx_path(place, name)
    if path is None:
        raise InputError(f"{place / name}: not there, nor with .gz; the other files are")
    return path


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of bytes, uint8 of that many dimensions; `.gz` is unpacked as it is read.

    Raises:
        InputError: another type or number of dimensions, or a length that is not what the header
            says.
    """
    try:
        with (
            opened_regular(path) as raw,
            gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw as file,
        ):
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
                raise InputError(f"{path}: not an IDX file of bytes in {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            size = int(np.prod(shape, dtype=object))
            if not 0 < size <= _LARGEST_FILE_BYTES:
                raise InputError(f"{path}: header says {shape}; allowed are up to 256 MB")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not readable ({error})") from None
    if len(content) != size:
        more = "more" if len(content) > size else f"{len(content)}"
        raise InputError(f"{path}: has {more} bytes where its header says {size}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _check_labels(labels: np.ndarray, images: int, classes: int, where: str) -> None:
    if len(labels) != images or not images:
        raise InputError(f"{where}: {images} images and {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"{where}: labels from {labels.min()} to {labels.max()}; allowed 0 to {classes - 1}"
        )


_CIFAR_HOW = (
    "get https://www.cs.toronto.edu/~kriz/{} and name the file or its folder with the option path"
)
_SOURCES = {
    "cifar10": _Source(
        (), _CIFAR_HOW.format("cifar-10-python.tar.gz"),
        _cifar("cifar10", "cifar-10-python.tar.gz", "cifar-10-batches-py"),
    ),
    "cifar100": _Source(
        (), _CIFAR_HOW.format("cifar-100-python.tar.gz"),
        _cifar("cifar100", "cifar-100-python.tar.gz", "cifar-100-python"),
    ),
    "mnist": _Source(
        (), "get the four IDX files (train-images-idx3-ubyte and so on, also gzipped) and name "
        "their folder with the option path", _idx("mnist"),
    ),
    "fashion_mnist": _Source(
        ("/usr/share/dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist"),
        "get the four IDX files from https://github.com/zalandoresearch/fashion-mnist, or Debian's "
        "package dataset-fashion-mnist, and name their folder with the option path",
        _idx("fashion_mnist"),
    ),
}  # fmt: skip
