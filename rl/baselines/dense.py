"""Never sparsifies."""

from torch import Tensor

from rl.baselines._base import Opponent, everywhere
from rl.envs.interface import ScheduleEnv


class Dense(Opponent):
    """The run that all speed-ups are relative to: its own is 1."""

    def wanted(self, env: ScheduleEnv) -> Tensor:
        return everywhere(env, 1.0)


OPPONENT = Dense
