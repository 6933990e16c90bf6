"""Reads the pickles of data sets without running anything that they ask for."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from hwsim.errors import InputError

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_TYPES = ("u1", "uint8", "|u1", "i8", "int64", "<i8")
# Stands for the class of arrays, which must not be called: it makes arrays of any size.
_ARRAY = object()
# A place in the memo takes memory even where nothing lies below it.
_MOST_MEMO_PLACES = 1 << 20


class _Refused(Exception):
    pass


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    # An array starts empty and gets its shape with its bytes, which the file has to hold.
    if kind is not _ARRAY or tuple(shape) != (0,):
        raise _Refused("an array with a shape but without bytes")
    return np.empty(0, np.uint8)


def _dtype(name: Any, *_: Any) -> np.dtype:
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if text not in _TYPES:
        raise _Refused(f"an array of type {text!r}")
    return np.dtype(text)


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in old pickle protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise _Refused("text in an encoding other than latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | object] = {
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "_reconstruct"): _reconstruct for module in _ARRAY_MODULES},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def _check_memo(content: bytes) -> None:
    for opcode, place, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (
            place is None or place >= _MOST_MEMO_PLACES
        ):
            raise _Refused(f"{place} places of memory")


def loads(content: bytes, where: str) -> Any:
    """The plain values and integer arrays of a pickle; texts of Python 2 come as bytes.

    Args:
        content: the pickle.
        where: what it is called in an error.

    Raises:
        InputError: it is broken, or asks for anything but lists, dictionaries, numbers, texts and
            arrays of integers. Nothing it asks for is run.
    """
    try:
        _check_memo(content)
        return _Reader(io.BytesIO(content), encoding="bytes").load()
    except _Refused as refused:
        raise InputError(
            f"{where}: asks for {refused}; allowed are plain values and arrays of integers"
        ) from None
    except Exception as error:  # a broken pickle can fail in many ways
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{where}: not a readable pickle ({what})") from None
