"""The Gymnasium environment, by a name that no folder of the user's can hide.

    import gymnasium

    world = gymnasium.make("nettime.environment:SparseTraining-v0")

Gymnasium imports this module for that. `import rl` registers "SparseTraining-v0" alone, where no
folder `rl` of the user's is in the way.
"""

from __future__ import annotations

from typing import Any

from nettime._packages import check_not_hidden

try:
    from gymnasium.envs.registration import register, registry
except ModuleNotFoundError as error:
    raise ImportError(
        f"nettime.environment: {error.name} is not installed; it needs pip install 'nettime[rl]'"
    ) from None

ID = "SparseTraining-v0"


def make(**settings: Any) -> Any:
    """A `rl.envs.gym.SparseTraining`.

    Raises:
        ImportError: a folder of the user's hides our package `rl`; the line names it.
    """
    check_not_hidden("rl")
    from rl.envs.gym import SparseTraining

    return SparseTraining(**settings)


def make_vector(num_envs: int = 1, **settings: Any) -> Any:
    """A `rl.envs.vector.SparseTrainingVector`, what `gymnasium.make_vec` gives.

    Raises:
        ImportError: as `make` has it.
    """
    check_not_hidden("rl")
    from rl.envs.vector import SparseTrainingVector

    return SparseTrainingVector(num_envs, **settings)


if ID not in registry:
    register(
        id=ID,
        entry_point="nettime.environment:make",
        vector_entry_point="nettime.environment:make_vector",
    )
