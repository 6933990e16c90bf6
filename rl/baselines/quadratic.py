"""The quadratic schedule."""

from typing import ClassVar

from rl.baselines._schedules import Schedule


class Quadratic(Schedule):
    """See `_schedules`."""

    shape: ClassVar[str] = "quadratic"


OPPONENT = Quadratic
