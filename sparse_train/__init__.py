"""sparse_train: dynamic sparse training of torch modules.

What knows no tensor (distributions, patterns, algorithms, budgets) is used without loading torch.
"""

from typing import TYPE_CHECKING

from hwsim.lazy import lazy

if TYPE_CHECKING:
    from sparse_train.record import TrainingRecord
    from sparse_train.runs.config import TrainConfig
    from sparse_train.sparsify import Sparsifier, sparsify
    from sparse_train.structural import prune_structurally
    from sparse_train.trainer import train
    from sparse_train.workload import workload

__all__ = [
    "Sparsifier", "TrainConfig", "TrainingRecord", "prune_structurally", "sparsify", "train",
    "workload",
]  # fmt: skip

lazy(__name__, {
    "Sparsifier": "sparse_train.sparsify",
    "TrainConfig": "sparse_train.runs.config",
    "TrainingRecord": "sparse_train.record",
    "prune_structurally": "sparse_train.structural",
    "sparsify": "sparse_train.sparsify",
    "train": "sparse_train.trainer",
    "workload": "sparse_train.workload",
})  # fmt: skip
