"""One training run, resumable to the bit."""

from __future__ import annotations

import contextlib
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hwsim.checks import check_number
from hwsim.errors import InputError
from sparse_train.masking.sparsifier import Sparsifier
from sparse_train.record import TrainingRecord
from sparse_train.runs import run_folder
from sparse_train.runs.config import TrainConfig
from sparse_train.runs.run import Run, private_randomness
from sparse_train.tasks import Prepared, make_task


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress callback is told after each step.

    Attributes:
        step, steps: done, and of the whole run.
        loss: of the step's batch.
        validation: metrics, in steps that were followed by one; else None.
    """

    step: int
    steps: int
    loss: float
    validation: dict[str, float] | None


def train(
    config: TrainConfig,
    folder: str | Path,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop_after: int | None = None,
    task: Prepared | None = None,
) -> TrainingRecord:
    """Trains, or goes on training, in a run folder.

    A run that was killed at any moment goes on from its last checkpoint when it is called again
    with the same config and folder, and ends with the same losses and masks, to the bit, as one
    that was never interrupted. A complete run is only read. Ctrl-C ends the step under way, writes
    a checkpoint and raises KeyboardInterrupt; a second Ctrl-C does not wait for either.

    Args:
        config: all settings.
        folder: made if it is not there. See `sparse_train.runs.run_folder` for what lies in it.
        progress: called after each step.
        task: the config's task with its data, where they have been read already.
        stop_after: return after this step, with a checkpoint; None trains to the end.

    Raises:
        InputError: settings or data that are not usable; a folder that cannot be written, is not
            a run's, is another config's (the key is named), or was begun with another torch or
            other data; a broken file in it.
        Diverged: the loss is no longer finite.
    """
    if stop_after is not None:
        check_number("stop_after", stop_after, least=0)
    folder = Path(folder)
    with run_folder.claimed(folder):
        known = run_folder.read_config(folder)
        if known is not None:
            _check_same(folder, config, known)
        config.check_updates()
        if task is None:
            task = make_task(config.task, config.task_options).prepare()
        threads = config.threads or (known or {}).get("environment", {}).get("threads")
        with _threads(threads), private_randomness(config.seed):
            run = Run(config, task)
            _open(folder, run, known)
            with _tensorboard(folder, run) as board:
                _loop(folder, run, progress, stop_after, board)
    return TrainingRecord.load(folder)


def _check_same(folder: Path, config: TrainConfig, known: dict[str, Any]) -> None:
    _check_origins(folder, config, known.get("origins", {}))
    theirs = TrainConfig.from_json(known.get("config", {}))
    key = config.first_difference(theirs)
    if key is not None:
        raise InputError(
            f"{key}: value is {getattr(config, key)!r}; the run in {folder} was begun with "
            f"{getattr(theirs, key)!r}; use that, or another folder"
        )
    version = known.get("environment", {}).get("torch")
    if version != torch.__version__:
        raise InputError(
            f"run folder {folder}: begun with torch {version}; this is {torch.__version__}, "
            "which need not give the same bits; use that version, or another folder"
        )


def _check_origins(folder: Path, config: TrainConfig, known: dict[str, Any]) -> None:
    """What is not ours must still be there, and be what the run was begun with."""
    try:
        present = config.origins()
    except InputError as error:
        where = "; ".join(f"{name} from {one.get('file', one)}" for name, one in known.items())
        raise InputError(f"run folder {folder}: begun with {where or 'others'}; {error}") from None
    for name, one in known.items():
        now = present.get(name, {})
        if now.get("sha256") != one.get("sha256"):
            raise InputError(
                f"run folder {folder}: {name} {getattr(config, name)!r} was begun with another "
                f"content of {one.get('file')}; restore it, or use another folder"
            )


def _open(folder: Path, run: Run, known: dict[str, Any] | None) -> None:
    """Writes what a new run's folder starts with, or restores the run's last checkpoint."""
    if known is None:
        run_folder.write_config(folder, _facts(run))
    elif known["task"]["digest"] != run.task.digest:
        raise InputError(
            f"run folder {folder}: begun on data with digest {known['task']['digest']}; it is now "
            f"{run.task.digest}; restore the data, or use another folder"
        )
    if not run_folder.workload_is_usable(folder):
        from sparse_train.workload import workload

        batch = run.task.batch(1, run.config.batch_size, run.config.seed)
        model = run.task.priced_model(run.model)
        run_folder.write_workload(
            folder, workload(model, batch, optimizer=run.config.priced_optimizer)
        )
    saved = run_folder.read_checkpoint(folder)
    if saved is None:
        run_folder.drop_masks_after(folder, -1)
        _write_masks(folder, run)
        run.evaluate()
        return
    run.load_state_dict(saved)
    metrics = run_folder.read_table(folder / run_folder.METRICS, run_folder.METRICS_SCHEMA)
    densities = run_folder.read_table(folder / run_folder.DENSITIES, run_folder.DENSITIES_SCHEMA)
    evaluations = run_folder.read_table(
        folder / run_folder.EVALUATIONS, run_folder.EVALUATIONS_SCHEMA
    )
    run.metrics = [row for row in metrics.iter_rows(named=True) if row["step"] <= run.step]
    run.evaluations = [row for row in evaluations.iter_rows(named=True) if row["step"] <= run.step]
    run.densities = [
        row for row in densities.iter_rows(named=True) if row["version"] <= run.mask_version
    ]
    if len(run.metrics) != run.step:
        raise InputError(
            f"{folder / run_folder.METRICS}: {len(run.metrics)} steps up to the checkpoint's "
            f"{run.step}; restore it from a copy, or delete {run_folder.CHECKPOINT} to train again "
            "from the start"
        )
    run_folder.drop_masks_after(folder, run.mask_version if run.sparsifier else -1)
    for version in sorted({row["version"] for row in run.densities}):
        run.explored.add(run_folder.read_masks(run_folder.mask_path(folder, version))[1])


def _loop(
    folder: Path,
    run: Run,
    progress: Callable[[Progress], None] | None,
    stop_after: int | None,
    board: Any,
) -> None:
    config = run.config
    last = config.steps if stop_after is None else min(stop_after, config.steps)
    whole = True  # Whether memory holds a step's end with all that belongs to it.
    try:
        with _interrupt_deferred() as interrupted:
            while run.step < last:
                whole = False
                if run.before_step():
                    _write_masks(folder, run)
                loss, changed = run.advance()
                if changed:
                    _write_masks(folder, run)
                due = run.step % config.eval_interval == 0 or run.step == config.steps
                validation = run.evaluate() if due else None
                if run.step == config.steps and config.test:
                    run.evaluate("test")
                if board is not None:
                    _show(board, run, loss, validation)
                if run.step % config.checkpoint_interval == 0 and run.step < last:
                    _save(folder, run)
                whole = True
                if progress is not None:
                    progress(Progress(run.step, config.steps, loss, validation))
                if interrupted():
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        if whole:
            _save(folder, run)
        raise
    except InputError:
        # Diverged, or weights that are no longer finite: what was recorded stays readable.
        _write_tables(folder, run)
        raise
    _save(folder, run)


def _save(folder: Path, run: Run) -> None:
    """A checkpoint, after everything that it relies on; at the end, weights: with them, all is."""
    _write_tables(folder, run)
    run_folder.write_checkpoint(folder, run.state_dict())
    if run.step == run.config.steps:
        run_folder.write_weights(folder, run.model.state_dict())


def _write_tables(folder: Path, run: Run) -> None:
    tables = (
        (run_folder.METRICS, run.metrics, run_folder.METRICS_SCHEMA),
        (run_folder.EVALUATIONS, run.evaluations, run_folder.EVALUATIONS_SCHEMA),
        (run_folder.DENSITIES, run.densities, run_folder.DENSITIES_SCHEMA),
    )
    for name, rows, schema in tables:
        run_folder.write_table(folder / name, rows, schema)
    run_folder.write_figures(folder, run.figures())


def _write_masks(folder: Path, run: Run) -> None:
    if run.sparsifier is not None:
        run.note_masks()
        masks = run.sparsifier.masks()
        own = isinstance(run.sparsifier, Sparsifier)
        trained = run.sparsifier.trained_masks() if own else None
        run_folder.write_masks(folder, run.mask_version, run.step + 1, masks, trained)


def _facts(run: Run) -> dict[str, Any]:
    try:
        version = metadata.version("nettime")
    except metadata.PackageNotFoundError:
        version = "not installed"
    return {
        "config": run.config.to_json(),
        "origins": run.config.origins(),
        "environment": {
            "nettime": version,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "system": platform.system(),
        },
        "task": run.task.describe(),
        "model": {"parameters": sum(p.numel() for p in run.model.parameters())},
        "gradient": "never" if run.sparsifier is None else run.sparsifier.algorithm.gradient,
        "compute": run.compute,
    }


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C only sets a flag, so that no step is cut in half; the second one cuts.

    Where Ctrl-C cannot come (another thread) or has a meaning of the caller's, nothing is changed.
    """
    flag = threading.Event()

    def note(*_: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield flag.is_set
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield flag.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _tensorboard(folder: Path, run: Run) -> Iterator[Any]:
    """A SummaryWriter if the config asks for one; events after the checkpoint are replaced."""
    if not run.config.tensorboard:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard: not installed; install it with: pip install 'nettime[tensorboard]'"
        ) from None
    with SummaryWriter(str(folder / "tensorboard"), purge_step=run.step + 1) as board:
        yield board


def _show(board: Any, run: Run, loss: float, validation: dict[str, float] | None) -> None:
    board.add_scalar("train/loss", loss, run.step)
    if validation is not None:
        for name, value in validation.items():
            board.add_scalar(f"validation/{name}", value, run.step)
        if run.sparsifier is not None:
            board.add_scalar("density", run.sparsifier.density, run.step)
