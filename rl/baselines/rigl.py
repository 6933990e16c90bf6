"""RigL at fixed density: a share of the smallest weights moves to where the gradient is largest.

Source: Evci et al. (2020), "Rigging the lottery: making all tickets winners".
"""

from collections.abc import Sequence

from rl.baselines._base import with_topology
from rl.baselines.static_erk import StaticERK
from rl.envs.interface import Context
from rl.envs.training_config import TrainingConfig

DROP_FRACTION = 0.3


class RigL(StaticERK):
    """ERK densities; pays for the dense gradient of each update."""

    def setting(
        self, config: TrainingConfig, contexts: Sequence[Context]
    ) -> tuple[TrainingConfig, list[Context]]:
        moving = with_topology(
            config, drop="magnitude", grow="gradient", drop_fraction=DROP_FRACTION
        )
        return moving, list(contexts)


OPPONENT = RigL
