"""The cubic schedule of Zhu & Gupta (2018), "To prune, or not to prune"."""

from typing import ClassVar

from rl.baselines._schedules import Schedule


class Cubic(Schedule):
    """See `_schedules`."""

    shape: ClassVar[str] = "cubic"


OPPONENT = Cubic
