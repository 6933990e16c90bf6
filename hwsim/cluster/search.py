"""Which plans fit, and which are fastest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hwsim.cluster.machine import Cluster
from hwsim.cluster.memory import need
from hwsim.cluster.parts import parts_of
from hwsim.cluster.plan import RECOMPUTE, ParallelPlan
from hwsim.cluster.step import ClusterStep, timed
from hwsim.errors import InputError
from hwsim.workload import Workload


def plans(
    cluster: Cluster, layers: int, base: ParallelPlan | None = None
) -> Iterator[ParallelPlan]:
    """Every plan that is tried: tensor parallel inside a node, powers of two, each recompute.

    Args:
        base: what plans have in common: all but form, ranks and recomputation.
    """
    cards, base = cluster.cards, base or ParallelPlan()
    for tp in _divisors(cluster.cards_per_node):
        for pp in _divisors(cards // tp):
            if pp > max(layers, 1) or pp > 64:
                continue
            dp = cards // tp // pp
            for form in _forms(cluster, dp, pp):
                for recompute in RECOMPUTE[::2]:
                    micro = max(base.micro_batches, 4 * pp if pp > 1 else 1)
                    yield replace(base, form=form, dp=dp, tp=tp, pp=pp, sequence=tp > 1,
                                  micro_batches=micro, recompute=recompute)  # fmt: skip


def _forms(cluster: Cluster, dp: int, pp: int) -> tuple[str, ...]:
    if dp == 1:
        return ("ddp",)
    if pp > 1:
        return ("ddp", "zero1")
    return ("ddp", "zero1", "fsdp", "hsdp") if cluster.nodes > 1 else ("ddp", "zero1", "fsdp")


def search(
    cluster: Cluster, step: Workload, base: ParallelPlan | None = None,
    known: dict[tuple, Any] | None = None,
) -> list[ClusterStep]:  # fmt: skip
    """The plans that fit, by seconds for a sample; only what nothing else beats in time and memory.

    Samples of a step are micro-batches × data-parallel ranks, so time is per micro-batch of one
    card: seconds · cards / (dp · micro-batches).

    Args:
        base: as for `plans`.
        known: shared between searches of the same step on the same cards, however many.

    Raises:
        InputError: no plan fits; the nearest is named.
    """
    parts = parts_of(step)
    layers = sum(bool(part.heads) for part in parts)
    tried: list[ClusterStep] = []
    known = {} if known is None else known
    least: tuple[float, ParallelPlan] | None = None
    for tried_plan in plans(cluster, layers, base):
        try:
            plan = tried_plan.on(cluster.cards_per_node)
        except InputError:  # nodes that no whole shares fill
            continue
        held = need(parts, plan).total
        if least is None or held < least[0]:
            least = held, plan
        if held > cluster.memory_bytes:
            continue
        try:
            tried.append(timed(cluster, parts, plan, known))
        except InputError:  # a plan that does not divide the model
            continue
    if not tried:
        assert least is not None
        raise InputError(
            f"memory: no plan fits {cluster.cards} cards of {cluster.memory_bytes / 1e9:.0f} GB; "
            f"the least, {least[1]}, needs {least[0] / 1e9:.1f} GB a card: allowed are more cards "
            "or a smaller batch"
        )
    tried.sort(key=per_sample)
    front: list[ClusterStep] = []
    for found in tried:
        if not front or found.need.total < front[-1].need.total:
            front.append(found)
    return front


def per_sample(found: ClusterStep) -> float:
    """Seconds a micro-batch takes of the whole cluster."""
    return found.seconds / (found.plan.dp * found.plan.micro_batches)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
