"""rl: learning a sparsity schedule against net training time."""

import importlib.util

from hwsim.errors import InputError


class MissingExtra(InputError, ImportError):
    """The packages that agents need are not installed; the line names them."""


_missing = [
    name for name in ("gymnasium", "torchrl", "tensordict") if not importlib.util.find_spec(name)
]
if _missing:
    raise MissingExtra(
        f"rl: {', '.join(_missing)} not installed; agents and their environment need "
        "pip install 'nettime[rl]'"
    )

import gymnasium  # noqa: E402  after the check

if "SparseTraining-v0" not in gymnasium.registry:
    gymnasium.register(
        id="SparseTraining-v0",
        entry_point="rl.envs.gym:SparseTraining",
        vector_entry_point="rl.envs.vector:SparseTrainingVector",
    )
