"""SET at fixed density: a share of the smallest weights moves to random places at every round.

Source: Mocanu et al. (2018), "Scalable training of artificial neural networks with adaptive sparse
connectivity inspired by network science".
"""

from collections.abc import Sequence

from rl.baselines._base import with_topology
from rl.baselines.static_erk import StaticERK
from rl.envs.interface import Context
from rl.envs.training_config import TrainingConfig

DROP_FRACTION = 0.3


class SET(StaticERK):
    """ERK densities; the moves are part of the environment's rules, so only real runs have them."""

    def setting(
        self, config: TrainingConfig, contexts: Sequence[Context]
    ) -> tuple[TrainingConfig, list[Context]]:
        moving = with_topology(config, drop="magnitude", grow="random", drop_fraction=DROP_FRACTION)
        return moving, list(contexts)


OPPONENT = SET
