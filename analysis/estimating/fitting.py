"""The batch of a card that fits and is fastest, for `nettime estimate --fit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from analysis.estimating.clusters import Asked, Tried, masks_at, sparse_step
from analysis.estimating.subject import Subject
from hwsim.cluster.machine import load_cluster
from hwsim.cluster.search import must_fit, per_sample, search
from hwsim.errors import InputError

MOST = 4096  # samples of a card that are tried
_GAIN = 0.01  # of the time of a sample, below which a larger batch is not worth looking for


def fitted(
    asked: Asked, made: Callable[[int], Subject], density: float, done: Callable[[int, str], None]
) -> tuple[Asked, list[Tried]]:
    """The question with the batch under which a sample is soonest, and the batches tried.

    Powers of two from 1 on, each with the plans that fit it, until none fits or a doubling gains
    less than 1 %. Both the sparse step and the dense one that it is compared with must fit.

    Args:
        made: a model with a batch of so many.

    Raises:
        InputError: not even a batch of 1 fits; the nearest plan is named.
    """
    cluster = load_cluster(asked.name).of(asked.gpus)
    asked = replace(asked, drawn={density: masks_at(asked, density)})
    best: tuple[float, Asked] | None = None
    tried: list[Tried] = []
    batch = 1
    while batch <= MOST:
        mine = replace(asked, what=made(batch))
        try:
            must_fit(cluster, mine.what.step, replace(mine.base, compact=False))
            step = search(cluster, sparse_step(mine, density), mine.base, {}, fastest=True)[0]
        except InputError:
            if best is None:
                raise
            tried.append(Tried(batch, None))
            break
        sample_s = per_sample(step) / batch
        tried.append(Tried(batch, sample_s))
        done(len(tried), f"batch {batch}")
        before = best
        if best is None or sample_s < best[0]:
            best = sample_s, mine
        if before is not None and sample_s > before[0] * (1.0 - _GAIN):
            break
        batch *= 2
    assert best is not None
    return best[1], tried
