"""Dense steps of named models, kept on disk: the next estimate of one needs no torch.

A step is kept under a digest of everything that it follows from: the model's name and sizes, this
package's code, torch's version. What is damaged or from other code is traced again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import hwsim
from hwsim import InputError, Op, Workload
from hwsim.files import replacing

FOLDER = "NETTIME_CACHE"
# Steps that are kept; of a model of hundreds of layers one takes some hundred kilobytes.
MOST = 64
_PACKAGES = ("hwsim", "sparse_train")
_FIELDS = tuple(f.name for f in fields(Op) if f.init and f.name != "mask")


def folder() -> Path:
    """Where steps are kept: $NETTIME_CACHE, else the user's cache folder."""
    if os.environ.get(FOLDER):
        return Path(os.environ[FOLDER])
    from platformdirs import user_cache_path

    return user_cache_path("nettime", appauthor=False)


def kept(asked: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` returns, from disk where it was made before by the same code.

    Args:
        asked: what it is made of, as JSON has it.
        make: gives a dict that JSON can hold, but for Workloads without masks.
    """
    key = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=12)
    key.update(_code().encode())
    path = folder() / f"{key.hexdigest()}.json"
    found = _read(path)
    if found is None:
        found = make()
        with contextlib.suppress(OSError, InputError):  # A cache that cannot be written is none.
            _write(path, found)
    return found


def made_anew(asked: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """`kept` without a disk: what follows from code that is not ours may change unseen."""
    del asked
    return make()


def _write(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {k: _plain(v) if isinstance(v, Workload) else v for k, v in found.items()},
        separators=(",", ":"),
    )
    with replacing(path) as part:
        part.write_text(_digest(text) + "\n" + text, encoding="utf-8")
    oldest = sorted(path.parent.glob("*.json"), key=lambda p: p.stat().st_mtime)[:-MOST]
    for one in oldest:
        one.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """None where there is no such file, or it is not as it was written."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    if digest != _digest(text):
        return None
    return {
        k: _step(v["workload"]) if isinstance(v, dict) and "workload" in v else v
        for k, v in json.loads(text).items()
    }


def _plain(step: Workload) -> dict[str, Any]:
    ops = [[getattr(op, name) for name in _FIELDS] for op in step]
    about = [step.name, step.unmasked, dict(step.unknown), step.peak_bytes, step.on_values]
    return {"workload": [ops, *about]}


def _step(content: list[Any]) -> Workload:
    ops, name, unmasked, unknown, peak, on_values = content
    made = tuple(Op(**dict(zip(_FIELDS, op, strict=True))) for op in ops)
    return Workload(made, name, tuple(unmasked), unknown, peak, on_values)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def _code() -> str:
    """Of all that decides what a step looks like."""
    hashed = hashlib.blake2b(importlib.metadata.version("torch").encode(), digest_size=16)
    top = Path(hwsim.__file__).parent.parent
    for package in _PACKAGES:
        for path in sorted((top / package).rglob("*.py")):
            hashed.update(path.read_bytes())
    hashed.update(Path(__file__).read_bytes())
    return hashed.hexdigest()
