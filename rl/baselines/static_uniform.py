"""One density in all layers from the start, masks that never move."""

from torch import Tensor

from rl.baselines._base import Opponent, everywhere
from rl.envs.interface import ScheduleEnv


class StaticUniform(Opponent):
    """Keeps `Setup.density`."""

    def wanted(self, env: ScheduleEnv) -> Tensor:
        return everywhere(env, self.setup.density)


OPPONENT = StaticUniform
