"""What a network is trained on. One file, one task."""

from sparse_train.registries import TASKS
from sparse_train.tasks._base import Batch, Prepared, Task, make_task, stream

__all__ = ["TASKS", "Batch", "Prepared", "Task", "make_task", "stream"]
