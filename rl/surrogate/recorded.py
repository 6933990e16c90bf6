"""Recorded runs of problems, made once and kept: what a surrogate is fitted to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from rl.envs.training import SparseTrainingEnv
from rl.envs.training_config import TrainingConfig
from rl.envs.whitebox import Draw
from rl.runs.prices import prices
from rl.runs.problems import Problem
from rl.surrogate.fit import Fitted, Recording, fit, record, surrogate

Tell = Callable[[str], None]


def recordings(
    problems: Sequence[tuple[str, str]], folder: Path, episodes: int, slots: int,
    tell: Tell = lambda _: None,
) -> list[Path]:  # fmt: skip
    """Records `episodes` runs of each problem that `folder` does not hold yet; the files.

    Progress does not depend on the device, so one recording serves all.
    """
    made = []
    folder.mkdir(parents=True, exist_ok=True)
    for network, task in problems:
        path = _file(folder, network, task)
        if not path.exists():
            tell(f"{network} on {task}: {episodes} runs")
            config = TrainingConfig(
                problems=((network, task),), devices=("ideal",), mode="density", budget=1.0
            )
            record(SparseTrainingEnv(config, min(slots, episodes)), episodes).save(path)
        made.append(path)
    return made


def source(
    problems: Sequence[tuple[str, str]], devices: Sequence[str], folder: Path
) -> tuple[Draw, int]:
    """What draws the fitted problems on every device, and their most layers.

    Raises:
        InputError: a recording is missing or damaged.
    """
    pairs = [
        (fitted(_file(folder, network, task)), prices(Problem(network, task), device))
        for network, task in problems
        for device in devices
    ]
    return surrogate(pairs), max(len(fit.sensitivity) for fit, _ in pairs)


@functools.cache
def fitted(path: Path) -> Fitted:
    """The fit of one recording, made once per process."""
    return fit(Recording.load(path))


def _file(folder: Path, network: str, task: str) -> Path:
    return folder / f"{network}-{task}.safetensors"


def fitted_error(problems: Sequence[tuple[str, str]], folder: Path) -> list[str]:
    """One sentence per problem: how far the surrogate is from runs that it has not seen."""
    made = []
    for network, task in problems:
        error = fitted(_file(folder, network, task)).error
        made.append(
            f"The surrogate of {network} on {task} is off by {error.held_out:.3f} of the way to "
            f"the target on held-out runs (root mean square); if density changed nothing, "
            f"{error.as_dense:.3f}; with one rate for all densities {error.one_rate:.3f}."
        )
    return made
