"""What can be taken by name: one registry a kind, each over a folder; one file is one member."""

from hwsim.registry import Registry

ALGORITHMS = Registry("algorithm", "sparse_train.algorithms", "ALGORITHM")
PATTERNS = Registry("pattern", "sparse_train.patterns", "PATTERN")
FAMILIES = Registry("model family", "sparse_train.models", "FAMILY")
TASKS = Registry("task", "sparse_train.tasks", "TASK")
NETWORKS = Registry("way of training", "sparse_train.networks", "NETWORKS")
