"""The Gymnasium environment, by a name that no folder of the user's can hide.

    import gymnasium

    world = gymnasium.make("nettime.environment:SparseTraining-v0")

Gymnasium imports this module for that. `import rl` registers "SparseTraining-v0" alone, where no
folder `rl` of the user's is in the way.
"""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register, registry

from nettime._packages import check_not_hidden

ID = "SparseTraining-v0"


def make(**settings: Any) -> Any:
    """A `rl.envs.gym.SparseTraining`.

    Raises:
        ImportError: a folder of the user's hides our package `rl`; the line names it.
    """
    check_not_hidden("rl")
    from rl.envs.gym import SparseTraining

    return SparseTraining(**settings)


if ID not in registry:
    register(id=ID, entry_point="nettime.environment:make")
