"""The linear schedule."""

from typing import ClassVar

from rl.baselines._schedules import Schedule


class Linear(Schedule):
    """See `_schedules`."""

    shape: ClassVar[str] = "linear"


OPPONENT = Linear
