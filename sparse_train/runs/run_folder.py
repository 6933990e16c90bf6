"""What lies in a run's folder, and how it is written so that a kill at any moment loses nothing.

    config.json             settings, environment, digests; written once, before the first step
    workload.json           the operations of one dense training step
    masks/v0000.safetensors one file per mask version: bits, and the first step that used it
    metrics.parquet         one row per training step
    evaluations.parquet     one row per evaluation and metric
    densities.parquet       one row per mask version and layer
    figures.json            exploration, coverage and bytes of the masked layers so far
    checkpoint.pt           all that is needed to go on
    weights.safetensors     the trained weights; written when the run is complete

Every file is replaced whole. A checkpoint is written after everything it relies on, so it never
knows more than the other files. They may know more than it: what they say of steps after the
checkpoint is dropped when the run goes on, and comes out the same again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from hwsim.errors import InputError
from hwsim.files import remove_leftovers, replacing, write_json
from hwsim.mask import Mask
from hwsim.workload import Op, Workload

FORMAT = 2
CONFIG = "config.json"
WORKLOAD = "workload.json"
METRICS = "metrics.parquet"
EVALUATIONS = "evaluations.parquet"
DENSITIES = "densities.parquet"
FIGURES = "figures.json"
CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
MASKS = "masks"
LOCK = ".lock"
# Before a layer's name, in a mask file: which of its weights are trained.
_TRAINED = "trained/"

METRICS_SCHEMA = {
    "step": pl.Int64,
    "loss": pl.Float64,
    "learning_rate": pl.Float64,
    "gradient_norm": pl.Float64,
    "mask_update": pl.Boolean,
    "elapsed_s": pl.Float64,
}
EVALUATIONS_SCHEMA = {
    "step": pl.Int64,
    "split": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
}
DENSITIES_SCHEMA = {
    "version": pl.Int64,
    "first_step": pl.Int64,
    "layer": pl.String,
    "nnz": pl.Int64,
    "size": pl.Int64,
    "density": pl.Float64,
}


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Makes the folder if need be and keeps other processes from training in it meanwhile.

    Raises:
        InputError: it cannot be made or written to, holds files that are not a run's, or another
            process trains in it. What was there is as it was.
    """
    try:
        if folder.is_dir():
            _check_own(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"run folder {folder}: another process trains in it") from None
    except OSError as error:
        raise InputError(f"run folder {folder}: {error.strerror or error}") from None
    try:
        remove_leftovers(folder)
        if (folder / MASKS).is_dir():
            remove_leftovers(folder / MASKS)
        yield
    finally:
        lock.release()


def _check_own(folder: Path) -> None:
    visible = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    if visible and CONFIG not in visible:
        raise InputError(
            f"run folder {folder}: holds {sorted(visible)[0]!r} but no {CONFIG}; "
            "allowed is a new or empty folder, or one of an earlier run"
        )


def read_config(folder: Path) -> dict[str, Any] | None:
    """The content of config.json; None in a folder that has none yet.

    Raises:
        InputError: it is not valid JSON, or of another format.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    content = _json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not the configuration of a run of format {FORMAT}")
    return content


def write_config(folder: Path, content: Mapping[str, Any]) -> None:
    write_json(folder / CONFIG, {"format": FORMAT, **content})


def write_workload(folder: Path, step: Workload) -> None:
    """Keeps one dense training step, so that the run can be priced without its data."""
    write_json(folder / WORKLOAD, {"name": step.name, "ops": [list(o.signature) for o in step]})


def read_workload(folder: Path) -> Workload:
    path = folder / WORKLOAD
    content = _json(path)
    try:
        ops = [
            Op(
                *fields[:11],
                weight_shape=None if fields[11] is None else tuple(fields[11]),
                **dict(zip(("window", "layout", "fused"), fields[12:], strict=False)),
            )
            for fields in content["ops"]
        ]
        return Workload(tuple(ops), content["name"])
    except (KeyError, IndexError, TypeError, InputError) as error:
        raise InputError(f"{path}: not a workload ({error})") from None


def write_table(path: Path, rows: list[dict[str, Any]], schema: Mapping[str, Any]) -> None:
    with replacing(path) as part:
        pl.DataFrame(rows, schema=dict(schema)).write_parquet(part)


def read_table(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame:
    """A table; empty if the file is not there yet."""
    if not path.is_file():
        return pl.DataFrame(schema=dict(schema))
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: not readable ({_first_line(error)})") from None
    if dict(table.schema) != dict(schema):
        raise InputError(f"{path}: columns are {table.columns}; allowed: {', '.join(schema)}")
    return table


def write_figures(folder: Path, figures: Mapping[str, float | int]) -> None:
    write_json(folder / FIGURES, dict(figures))


def read_figures(folder: Path) -> dict[str, float | int]:
    """Figures of the masks; empty if there are none yet."""
    path = folder / FIGURES
    if not path.is_file():
        return {}
    content = _json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not the figures of a run")
    return content


def mask_path(folder: Path, version: int) -> Path:
    return folder / MASKS / f"v{version:04d}.safetensors"


def write_masks(
    folder: Path,
    version: int,
    first_step: int,
    masks: Mapping[str, Mask],
    trained: Mapping[str, Mask] | None = None,
) -> None:
    """One version: the bits of each layer in rows' order, eight a byte.

    `trained` is given where the optimizer trains inactive weights too: which weights those are.
    """
    path = mask_path(folder, version)
    path.parent.mkdir(exist_ok=True)
    bits = {name: mask.bits for name, mask in masks.items()}
    bits |= {_TRAINED + name: mask.bits for name, mask in (trained or {}).items()}
    shapes = {name: mask.shape for name, mask in masks.items()}
    metadata = {"first_step": str(first_step), "shapes": json.dumps(shapes)}
    with replacing(path) as part:
        save_file(bits, part, metadata=metadata)


def read_masks(path: Path) -> tuple[int, dict[str, Mask]]:
    """(the first step that used them, layer → mask)."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            shapes = json.loads(metadata["shapes"])
            masks = {name: _mask(file.get_tensor(name), shapes[name]) for name in shapes}
            return int(metadata["first_step"]), masks
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a mask version ({_first_line(error)})") from None


def read_trained(path: Path) -> dict[str, Mask]:
    """Layer → the weights that the optimizer trains; empty where those are the active ones."""
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = json.loads(file.metadata()["shapes"])
            return {
                name: _mask(file.get_tensor(_TRAINED + name), shape)
                for name, shape in shapes.items()
                if _TRAINED + name in file.keys()  # noqa: SIM118 (it is no mapping)
            }
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a mask version ({_first_line(error)})") from None


def _mask(packed: np.ndarray, shape: tuple[int, int]) -> Mask:
    n_out, n_in = shape
    bits = np.unpackbits(packed, count=n_out * n_in)
    return Mask(bits.view(np.bool_).reshape(n_out, n_in), copy=False)


def mask_versions(folder: Path) -> list[Path]:
    """The files of all versions, first to last."""
    return sorted((folder / MASKS).glob("v*.safetensors"), key=lambda p: int(p.stem[1:]))


def drop_masks_after(folder: Path, version: int) -> None:
    """Deletes versions that came after a checkpoint: the run makes them again."""
    for path in mask_versions(folder):
        if int(path.stem[1:]) > version:
            path.unlink()


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    with replacing(folder / CHECKPOINT) as part:
        torch.save(dict(state), part)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint; None if there is none yet."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can fail in many ways inside torch
        raise InputError(
            f"{path}: not readable ({_first_line(error)}); delete it to train again from the start"
        ) from None


def write_weights(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """The trained tensors; those that share memory under two names are kept under the first."""
    kept: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor.detach().contiguous()
    with replacing(folder / WEIGHTS) as part:
        save_tensors(kept, part)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
