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
    manifest.json           the digest of every file above (`sparse_train.runs.manifest`)

Every file is replaced whole, and read only if it is what was written. A checkpoint is written after
everything it relies on, so it never knows more than the other files. They may know more than it:
what they say of steps after the checkpoint is dropped when the run goes on, and comes out the same
again.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load, save
from safetensors.torch import save_file as save_tensors

from hwsim.errors import InputError
from hwsim.files import as_json, parse_json, remove_leftovers, watched
from hwsim.mask import Mask
from hwsim.workload import Op, Workload
from sparse_train.data import tensor_files
from sparse_train.runs import manifest

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
    made: list[Path] = []
    try:
        if folder.is_dir():
            _check_own(folder)
        made = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"run folder {folder}: another process trains in it") from None
    except OSError as error:
        raise InputError(f"run folder {folder}: {error.strerror or error}") from None
    key = folder.resolve()
    try:
        remove_leftovers(folder)
        if (folder / MASKS).is_dir():
            remove_leftovers(folder / MASKS)
        _claims[key] = manifest.Manifest(folder)
        yield
        _claims[key].settle()
    except BaseException:
        _leave_nothing(folder, made)
        raise
    finally:
        _claims.pop(key, None)
        lock.release()


# The manifests of the folders that this process trains in.
_claims: dict[Path, manifest.Manifest] = {}


def _manifest(folder: Path) -> manifest.Manifest:
    return _claims.get(folder.resolve()) or manifest.Manifest(folder)


def _leave_nothing(folder: Path, made: list[Path]) -> None:
    """Takes away the folders that were made, if nothing has been put into them."""
    if made and [p.name for p in folder.iterdir()] in ([], [LOCK]):
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
            for path in made:
                path.rmdir()


def _check_own(folder: Path) -> None:
    visible = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    if visible == [manifest.MANIFEST]:  # killed before the configuration was there
        return
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
    content = _json(path, folder)
    if content is None:
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not the configuration of a run of format {FORMAT}")
    return content


def write_config(folder: Path, content: Mapping[str, Any]) -> None:
    """The run's settings."""
    _write_json(folder / CONFIG, {"format": FORMAT, **content})


def write_workload(folder: Path, step: Workload) -> None:
    """Keeps one dense training step, so that the run can be priced without its data."""
    _write_json(folder / WORKLOAD, {"name": step.name, "ops": [list(o.signature) for o in step]})


def workload_is_usable(folder: Path) -> bool:
    """Whether the workload's file is there, and is what was written."""
    try:
        return manifest.check_file(folder / WORKLOAD, folder)
    except InputError:
        return False


def read_workload(folder: Path) -> Workload:
    """One dense step of the run; an InputError if the file is missing or damaged."""
    path = folder / WORKLOAD
    content = _json(path, folder)
    if content is None:
        raise InputError(f"{path}: No such file or directory")
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
    except (KeyError, IndexError, TypeError, AttributeError, InputError) as error:
        raise InputError(f"{path}: not a workload ({error})") from None


def write_table(path: Path, rows: list[dict[str, Any]], schema: Mapping[str, Any]) -> None:
    """Rows as Parquet, whole or not at all."""
    with _manifest(path.parent).replacing(path) as part, watched(part) as file:
        pl.DataFrame(rows, schema=dict(schema)).write_parquet(file)


def read_table(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame:
    """A table; empty if the file is not there yet."""
    content = manifest.read_checked(path, path.parent)
    if content is None:
        return pl.DataFrame(schema=dict(schema))
    try:
        table = pl.read_parquet(io.BytesIO(content))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the Rust library is no Exception
        raise InputError(f"{path}: not readable ({_first_line(error)})") from None
    if dict(table.schema) != dict(schema):
        raise InputError(f"{path}: columns are {table.columns}; allowed: {', '.join(schema)}")
    return table


def write_figures(folder: Path, figures: Mapping[str, float | int]) -> None:
    """Numbers about the whole run."""
    _write_json(folder / FIGURES, dict(figures))


def read_figures(folder: Path) -> dict[str, float | int]:
    """Figures of the masks; empty if there are none yet."""
    path = folder / FIGURES
    content = _json(path, folder)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: not the figures of a run")
    return content


def mask_path(folder: Path, version: int) -> Path:
    """Of a version of the masks."""
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
    with _manifest(folder).replacing(path) as part:
        part.write_bytes(tensor_files.with_metadata(save(bits), metadata))


def read_masks(path: Path) -> tuple[int, dict[str, Mask]]:
    """(the first step that used them, layer → mask)."""
    first_step, masks, _ = read_version(path)
    return first_step, masks


def read_version(path: Path) -> tuple[int, dict[str, Mask], dict[str, Mask]]:
    """(the first step that used it, layer → mask, layer → the weights that are trained).

    The last is empty where the optimizer trains the active weights alone.
    """
    folder = path.parent.parent if path.parent.name == MASKS else path.parent
    content = manifest.read_checked(path, folder)
    if content is None:
        raise InputError(f"{path}: not a mask version (No such file or directory)")
    try:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])["__metadata__"]
        shapes = {name: tuple(shape) for name, shape in json.loads(header["shapes"]).items()}
        bits = load(content)
        masks = {name: _mask(bits[name], shape) for name, shape in shapes.items()}
        trained = {
            name: _mask(bits[_TRAINED + name], shape)
            for name, shape in shapes.items()
            if _TRAINED + name in bits
        }
        return int(header["first_step"]), masks, trained
    except (
        SafetensorError, KeyError, ValueError, TypeError, AttributeError, struct.error,
        RecursionError, MemoryError,
    ) as error:  # fmt: skip
        raise InputError(f"{path}: not a mask version ({_first_line(error)})") from None


def _mask(packed: np.ndarray, shape: tuple[int, int]) -> Mask:
    n_out, n_in = shape
    if packed.dtype != np.uint8 or packed.shape != (-(-n_out * n_in // 8),):
        raise ValueError(f"{packed.dtype} {packed.shape} for a mask of shape {shape}")
    bits = np.unpackbits(packed, count=n_out * n_in)
    return Mask(bits.view(np.bool_).reshape(n_out, n_in), copy=False)


def mask_versions(folder: Path) -> list[Path]:
    """The files of all versions, first to last."""
    return sorted((folder / MASKS).glob("v*.safetensors"), key=lambda p: int(p.stem[1:]))


def drop_masks_after(folder: Path, version: int) -> None:
    """Deletes versions that came after a checkpoint: the run makes them again."""
    _manifest(folder).remove([p for p in mask_versions(folder) if int(p.stem[1:]) > version])


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """All that training goes on from, whole or not at all."""
    with _manifest(folder).replacing(folder / CHECKPOINT) as part:
        tensor_files.write(dict(state), part)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint; None if there is none (any more): then the run begins again."""
    path = folder / CHECKPOINT
    if not path.is_file() or not manifest.check_file(path, folder):
        return None
    try:
        return tensor_files.read(path, str(path))
    except InputError as error:
        raise InputError(f"{error}; delete it to train again from the start") from None


def write_weights(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """The trained tensors; those that share memory under two names are kept under the first."""
    kept: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor.detach().contiguous()
    with _manifest(folder).replacing(folder / WEIGHTS) as part:
        save_tensors(kept, part)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The trained tensors of a complete run.

    Raises:
        InputError: the run is not complete, or the file is damaged.
    """
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not is_complete(folder):
        raise InputError(f"run folder {folder}: its training is not at its end; train it first")
    manifest.check_file(path, folder)
    return load_file(path)


def is_complete(folder: Path) -> bool:
    """Whether the trained weights are there.

    Raises:
        InputError: they were, and are not any more.
    """
    path = folder / WEIGHTS
    if manifest.is_lost(path, folder):
        raise InputError(
            f"{path}: missing; train again with the same settings, and it is written from the "
            "checkpoint"
        )
    return path.is_file()


def _write_json(path: Path, content: Any) -> None:
    with _manifest(path.parent).replacing(path) as part:
        # Names of files need not be UTF-8: Python's JSON reads these back.
        part.write_text(as_json(content), encoding="utf-8", errors="surrogatepass")


def _json(path: Path, folder: Path) -> Any:
    """The content of a JSON file; None if it is not there yet."""
    content = manifest.read_checked(path, folder)
    return None if content is None else parse_json(content, str(path))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
