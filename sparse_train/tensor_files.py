"""Files of tensors: every write that fails is told, every bit that is read is checked."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hwsim.errors import InputError
from hwsim.files import watched

_DIGEST = "sha256"  # in the metadata of a safetensors file: of all arrays and the other metadata


def write(content: Any, path: Path) -> None:
    """`torch.save` to a name of its own (see `hwsim.files.replacing`).

    Raises:
        OSError: a write failed; torch would raise a RuntimeError about positions.
    """
    with watched(path) as file:
        torch.save(content, file)


def read(path: Path, label: str) -> Any:
    """What `write` wrote, tensors on the CPU; nothing in the file is run.

    The file's own checksums (CRC-32 of each tensor) are compared first: torch does not, and would
    hand out numbers that were never written.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            raise InputError(f"{label}: damaged: {bad} is not what was written")
        return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{label}: there is no such file") from None
    except Exception as error:  # a broken file can fail in many ways inside torch
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{label}: cannot be read ({reason[:160]})") from None


def write_arrays(
    arrays: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file that `read_arrays` can tell from a damaged one."""
    kept = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    about = dict(metadata or {})
    path.write_bytes(with_metadata(save(kept), {**about, _DIGEST: _digest(kept, about)}))


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with metadata in a fixed order (the library's changes by the process)."""
    (size,) = struct.unpack("<Q", content[:8])
    header = {"__metadata__": dict(metadata), **json.loads(content[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def read_arrays(path: Path, label: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of what `write_arrays` wrote; files from before it are not checked.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{label}: there is no such file") from None
    except (OSError, SafetensorError, ValueError, TypeError, MemoryError) as error:
        raise InputError(f"{label}: cannot be read ({error})") from None
    told = about.pop(_DIGEST, None)
    if told is not None and told != _digest(arrays, about):
        raise InputError(f"{label}: damaged: not the content that was written")
    return arrays, about


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()
