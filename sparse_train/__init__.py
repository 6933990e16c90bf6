"""sparse_train: dynamic sparse training of torch modules."""

# Functions with the names of their modules: bound here, after the modules have been.
from sparse_train.record import TrainingRecord
from sparse_train.runs.config import TrainConfig
from sparse_train.sparsify import Sparsifier, sparsify
from sparse_train.trainer import train
from sparse_train.workload import workload

__all__ = ["Sparsifier", "TrainConfig", "TrainingRecord", "sparsify", "train", "workload"]
