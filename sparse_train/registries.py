"""What can be taken by name: one registry a kind, each over a folder; one file is one member."""

from hwsim.registry import Registry

ALGORITHMS = Registry(
    "algorithm", "sparse_train.algorithms", "ALGORITHM", group="nettime.algorithms"
)
PATTERNS = Registry("pattern", "sparse_train.patterns", "PATTERN", group="nettime.patterns")
FAMILIES = Registry("model family", "sparse_train.models", "FAMILY", group="nettime.models")
TASKS = Registry("task", "sparse_train.tasks", "TASK", group="nettime.tasks")
NETWORKS = Registry(
    "way of training", "sparse_train.networks", "NETWORKS", group="nettime.networks"
)
