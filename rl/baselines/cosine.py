"""The cosine schedule."""

from typing import ClassVar

from rl.baselines._schedules import Schedule


class Cosine(Schedule):
    """See `_schedules`."""

    shape: ClassVar[str] = "cosine"


OPPONENT = Cosine
