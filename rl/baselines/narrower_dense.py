"""A dense network whose step costs what a sparse one of `Setup.density` does, but narrower."""

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from hwsim import InputError
from rl.baselines.dense import Dense
from rl.envs.interface import Context, ScheduleEnv
from rl.envs.training_config import TrainingConfig
from rl.runs.problems import narrower


class NarrowerDense(Dense):
    """Must reach the loss of the network that it replaces, and is counted against its time.

    Raises:
        InputError: the environment trains no networks (the white box).
    """

    def wanted(self, env: ScheduleEnv) -> Tensor:
        if env.contexts is None:
            raise InputError(
                "opponent NarrowerDense: this environment trains no networks; allowed is real "
                "training"
            )
        return super().wanted(env)

    def setting(
        self, config: TrainingConfig, contexts: Sequence[Context]
    ) -> tuple[TrainingConfig, list[Context]]:
        d = self.setup.density
        problems = tuple((narrower(network, task, d), task) for network, task in config.problems)
        own = [
            dataclasses.replace(
                c, network=narrower(c.network, c.task, d), reference=c.reference or c.network
            )
            for c in contexts
        ]
        return dataclasses.replace(config, problems=problems), own


OPPONENT = NarrowerDense
