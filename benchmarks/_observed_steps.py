"""Observed steps of measured models, kept on disk under the sources that observed them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from functools import cache
from pathlib import Path

import analysis.steps.models
import hwsim.workload
import sparse_train
from analysis.estimating.kept import folder as kept_in
from analysis.steps.models import workload_of
from analysis.steps.record import Step
from hwsim.files import replacing
from hwsim.workload import Op, Workload

_PACKAGES = ("torch", "timm", "transformers")
# Of sparse_train: the observer, and what it tells weights by.
_OBSERVER = ("workload.py", "weightless.py", "private_torch.py", "naming.py", "masking/kinds.py",
             "observing/*.py")  # fmt: skip


def observed(step: Step, cached: bool = True) -> Workload:
    """The step's ops; from disk if they were observed by these very sources and packages.

    Masks are not kept.
    """
    if not cached or step.pattern != "dense":
        return workload_of(step)
    path = kept_in() / "measured" / sources() / f"{_digest(repr(step.what).encode())}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(json.dumps([o.signature for o in workload_of(step)]), "utf-8")
    return Workload(tuple(
        Op(*r[:11], weight_shape=tuple(r[11]) if r[11] else None, window=r[12], layout=r[13],
           fused=r[14])
        for r in json.loads(path.read_text(encoding="utf-8"))
    ))  # fmt: skip


@cache
def sources() -> str:
    """A digest of all that decides what a step is observed to be."""
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}".encode())
    files = [Path(analysis.steps.models.__file__), Path(hwsim.workload.__file__)]
    folder = Path(sparse_train.__file__).parent
    files += [path for pattern in _OBSERVER for path in sorted(folder.glob(pattern))]
    return _digest(*found, *(path.read_bytes() for path in files))


def _digest(*parts: bytes) -> str:
    hashed = hashlib.blake2b(digest_size=12)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()
