"""A reward of your own: what an agent is paid for between two decisions.

python examples/own_reward.py
nettime agent train --reward examples/own_reward.py:hurry --out runs/hurried
"""

from pathlib import Path

import torch

from rl.moment import Moment
from rl.rewards import make_reward


def hurry(before: Moment, after: Moment, haste: float = 0.5) -> torch.Tensor:
    """Net time saved, in shares of dense training; seconds already spent weigh more by `haste`."""
    spent = (after.spent_s - before.spent_s) / before.dense_s
    left = (after.remaining_s - before.remaining_s) / before.dense_s
    return -((1 + haste) * spent + left)


def main() -> None:
    """A decision after which a tenth of dense training's time is spent, and a third of it saved."""
    one = torch.ones(1)
    start = Moment(0 * one, 1.0 * one, one, 0 * one, one, one, 0 * one)
    later = Moment(0.1 * one, 0.57 * one, one, 0.1 * one, one, 0.5 * one, 0.43 * one)
    mine = f"{__file__}:hurry"
    for name in ("log_ratio", mine, f"{mine}(haste=2)"):
        print(f"{Path(name).name}: {float(make_reward(name)(start, later)):+.3f}")


if __name__ == "__main__":
    main()
