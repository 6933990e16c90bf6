"""What a network is trained on. One file, one task."""

from sparse_train.tasks._base import TASKS, Prepared, Task, make_task

__all__ = ["TASKS", "Prepared", "Task", "make_task"]
