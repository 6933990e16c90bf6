"""nettime: what a mask really costs. The names most people need; the packages have the rest.

    import nettime

    sparsifier = nettime.sparsify(model, optimizer, "rigl", density=0.1, total_steps=10_000)
    step = nettime.workload(model, batch, sparsifier.masks())
    print(nettime.load_device("wafer").estimate(step))

`hwsim` knows masks and machines, `sparse_train` networks, `rl` agents, `analysis` the command.
Their names are common ones: a folder `rl` or `analysis` of your own beside your script hides ours.
What does not need the hidden one works; what needs it says in one line which folder is in the way.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nettime._packages import check_not_hidden
from nettime._version import __version__

if TYPE_CHECKING:
    from analysis.reporting.listing import runs
    from hwsim import Estimate, InputError, Mask, Workload, device_names, load_device
    from sparse_train import Sparsifier, TrainConfig, TrainingRecord, sparsify, train, workload
    from sparse_train.testing import check_algorithm

_NAMES = {
    "Estimate": "hwsim", "InputError": "hwsim", "Mask": "hwsim", "Workload": "hwsim",
    "device_names": "hwsim", "load_device": "hwsim",
    "Sparsifier": "sparse_train", "TrainConfig": "sparse_train",
    "TrainingRecord": "sparse_train", "sparsify": "sparse_train", "train": "sparse_train",
    "workload": "sparse_train", "check_algorithm": "sparse_train.testing",
    "runs": "analysis.reporting.listing",
}  # fmt: skip

__all__ = [
    "Estimate", "InputError", "Mask", "Sparsifier", "TrainConfig", "TrainingRecord", "Workload",
    "__version__", "check_algorithm", "device_names", "load_device", "runs", "sparsify",
    "train", "workload",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'nettime' has no attribute {name!r}")
    check_not_hidden(_NAMES[name])
    found = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
