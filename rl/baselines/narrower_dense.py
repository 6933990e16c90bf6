"""A dense network with as many weights as a sparse one of `Setup.density`, but narrower."""

import dataclasses
import re
from collections.abc import Sequence

from torch import Tensor

from hwsim import InputError
from rl.baselines.dense import Dense
from rl.envs.interface import Context, ScheduleEnv
from rl.envs.training_config import TrainingConfig

_NAME = re.compile(r"(.*-\d+x)(\d+)")


def narrower(network: str, density: float) -> str:
    """The network with about `density` of the weights.

    >>> narrower("bert-2x32", 0.25)
    'bert-2x16'
    """
    found = _NAME.fullmatch(network)
    if not found:
        raise InputError(f"network: value is {network!r}; allowed is FAMILY-LAYERSxWIDTH")
    return f"{found[1]}{max(1, round(int(found[2]) * density**0.5))}"


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
        problems = tuple((narrower(network, d), task) for network, task in config.problems)
        own = [
            dataclasses.replace(
                c, network=narrower(c.network, d), reference=c.reference or c.network
            )
            for c in contexts
        ]
        return dataclasses.replace(config, problems=problems), own


OPPONENT = NarrowerDense
