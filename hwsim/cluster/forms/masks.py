"""Masks that change must be the same on all ranks: what that takes.

Each rank that holds all weights and the summed gradients of a layer finds the same mask by itself.
Where a layer is shared out, its budget is met by all ranks together: the threshold is found a byte
of the scores at a time, and for each byte counts by value are summed up; then ranks that gather
weights need the whole mask, a bit a weight.

Source: radix select, Alabi et al. 2012 (Fast k-Selection Algorithms for Graphics Processing
Units), section 3, here with its counts summed over ranks.
"""

from __future__ import annotations

from hwsim.cluster.plan import ParallelPlan

# Scores of 4 bytes, counts of 4 bytes for each of a byte's values.
_ROUNDS, _COUNTS_BYTES = 4, 256 * 4


def selections(
    masks: int, plan: ParallelPlan, *, dense_gradient: bool
) -> list[tuple[str, float, int]]:
    """Collectives by which ranks find common thresholds: kind, bytes, ranks.

    Args:
        masks: that change.
        dense_gradient: whether weights are grown by their gradients too, a second selection.
    """
    ranks = plan.tp * (plan.shard_ranks if plan.sharded >= 1 else 1)
    if ranks == 1 or not masks:
        return []
    rounds = _ROUNDS * (2 if dense_gradient else 1)
    return [("all_reduce", float(masks * _COUNTS_BYTES), ranks)] * rounds


def told(mask_bytes: float, plan: ParallelPlan) -> list[tuple[str, float, int]]:
    """By which each rank is told the masks of others' shares."""
    if plan.sharded < 1 or plan.shard_ranks == 1 or not mask_bytes:
        return []
    return [("all_gather", mask_bytes, plan.shard_ranks)]
