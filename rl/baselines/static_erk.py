"""ERK densities from the start, masks that never move."""

import functools

import torch
from torch import Tensor

from hwsim import InputError
from rl.baselines._base import Opponent
from rl.envs.interface import ScheduleEnv
from sparse_train.distributions import erk


class StaticERK(Opponent):
    """Keeps `Setup.density` over the whole network, shared out by the layers' shapes.

    Raises:
        InputError: the environment knows no shapes (the white box).
    """

    def wanted(self, env: ScheduleEnv) -> Tensor:
        if env.shapes is None:
            raise InputError(
                f"opponent {type(self).__name__}: this environment knows no shapes of layers; "
                "allowed is real training"
            )
        found = torch.ones_like(env.density)
        for row, shapes in enumerate(env.shapes):
            found[row, : len(shapes)] = torch.tensor(_densities(shapes, self.setup.density))
        return found


@functools.cache
def _densities(shapes: tuple[tuple[int, int], ...], density: float) -> tuple[float, ...]:
    return tuple(erk({str(i): shape for i, shape in enumerate(shapes)}, density).values())


OPPONENT = StaticERK
