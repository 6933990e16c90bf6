"""Which plans fit, and which are fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hwsim import units
from hwsim.cluster.costs import Costs, costs
from hwsim.cluster.machine import Cluster
from hwsim.cluster.memory import Need, activations, need, with_recompute
from hwsim.cluster.parts import Part, parts_of
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.step import ClusterStep, at_least_s, laid_out
from hwsim.errors import InputError
from hwsim.workload import Workload

_ROUNDING = 1e-12


def plans(
    cluster: Cluster, layers: int, base: ParallelPlan | None = None
) -> Iterator[ParallelPlan]:
    """Every split that is tried: tensor parallel inside a node, powers of two.

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
                micro = max(base.micro_batches, 4 * pp if pp > 1 else 1)
                yield replace(base, form=form, dp=dp, tp=tp, pp=pp, sequence=tp > 1,
                              micro_batches=micro)  # fmt: skip


def recomputations(
    parts: Sequence[Part], plan: ParallelPlan, known: Need, capacity: float
) -> Iterator[ParallelPlan]:
    """Of a split, what may be fastest in what it needs: the plan as it is, if that fits; else
    what computes least again and fits; and full recomputation, which needs least.

    Args:
        known: what the plan needs without any.
    """
    full = replace(plan, recompute="full")
    if known.total <= capacity:
        yield plan
    else:
        room = capacity - known.states
        selective = replace(plan, recompute="selective")
        if any(p.scores for p in parts) and activations(parts, selective) <= room:
            yield selective
        fewest = _fewest(parts, full, room)
        if fewest is not None:
            yield fewest
    yield full


def _fewest(parts: Sequence[Part], full: ParallelPlan, room: float) -> ParallelPlan | None:
    """Full recomputation of each n-th layer with the largest n, above 1, that a room holds."""
    layers = sum(bool(part.heads) for part in parts) // (full.pp * full.interleave)
    fits, most = 1, layers
    while fits < most:  # activations grow with n
        n = (fits + most + 1) // 2
        if activations(parts, replace(full, every=n)) <= room:
            fits = n
        else:
            most = n - 1
    return replace(full, every=fits) if fits > 1 else None


def _forms(cluster: Cluster, dp: int, pp: int) -> tuple[str, ...]:
    if dp == 1:
        return ("ddp",)
    if pp > 1:
        return ("ddp", "zero1")
    return ("ddp", "zero1", "fsdp", "hsdp") if cluster.nodes > 1 else ("ddp", "zero1", "fsdp")


def search(
    cluster: Cluster, step: Workload, base: ParallelPlan | None = None,
    known: dict[tuple, Any] | None = None, *, fastest: bool = False,
) -> list[ClusterStep]:  # fmt: skip
    """The plans that fit, by seconds for a sample; only what nothing else beats in time and memory.

    Samples of a step are micro-batches × data-parallel ranks, so time is per micro-batch of one
    card: seconds · cards / (dp · micro-batches).

    Args:
        base: as for `plans`.
        known: shared between searches of the same step on the same cards, however many.
        fastest: whether only the first of them is wanted, which is sooner found; what comes behind
            it is not complete.

    Raises:
        InputError: no plan fits; the nearest is named.
    """
    known = {} if known is None else known
    fits = list(_candidates(cluster, parts_of(step), base, known))
    return _front(cluster, fits, fastest=fastest)


def must_fit(cluster: Cluster, step: Workload, base: ParallelPlan | None = None) -> None:
    """Nothing, if some plan fits.

    Raises:
        InputError: as for `search`.
    """
    next(_candidates(cluster, parts_of(step), base, {}))


def _candidates(
    cluster: Cluster, parts: Sequence[Part], base: ParallelPlan | None, known: dict[tuple, Any]
) -> Iterator[_Candidate]:
    """The plans that fit and divide the model; an InputError where there are none."""
    layers = sum(bool(part.heads) for part in parts)
    least: tuple[float, ParallelPlan] | None = None
    any_fits = False
    for tried_plan in plans(cluster, layers, base):
        try:
            split = tried_plan.on(cluster.cards_per_node)
        except InputError:  # nodes that no whole shares fill
            continue
        plain = need(parts, split, cluster.device)
        for plan in recomputations(parts, split, plain, cluster.memory_bytes):
            held = with_recompute(plain, parts, plan)
            if least is None or held.total < least[0]:
                least = held.total, plan
            if held.total > cluster.memory_bytes:
                continue
            try:
                cost = costs(cluster, parts, plan, known)
            except InputError:  # a plan that does not divide the model
                continue
            any_fits = True
            yield _Candidate(plan, cost, held)
    if not any_fits:
        assert least is not None
        raise InputError(
            f"memory: no plan fits {cluster.cards} cards of "
            f"{units.quantity(cluster.memory_bytes, 'B')}; the least, {least[1]}, needs "
            f"{units.quantity(least[0], 'B')} a card: allowed are more cards or a smaller batch"
        )


class _Candidate(NamedTuple):
    """A plan that fits, before anybody knows when its tasks end."""

    plan: ParallelPlan
    costs: list[Costs]
    need: Need

    @property
    def at_least_s(self) -> float:
        """Seconds for a micro-batch of the cluster that it does not beat."""
        return at_least_s(self.plan, self.costs) / (self.plan.dp * self.plan.micro_batches)


def _front(
    cluster: Cluster, fits: Sequence[_Candidate], *, fastest: bool = False
) -> list[ClusterStep]:
    """The plans that nothing beats in time and memory; others are left where a bound tells.

    Of these, with `fastest`, the first; others may be missing.
    """
    tried: list[ClusterStep] = []
    bounds = [one.at_least_s * (1 - _ROUNDING) for one in fits]
    for i in sorted(range(len(fits)), key=lambda i: bounds[i]):
        one = fits[i]
        if any(per_sample(t) < bounds[i] and (fastest or t.need.total <= one.need.total)
               for t in tried):  # fmt: skip
            continue
        tried.append(laid_out(cluster, *one))
    tried.sort(key=lambda found: (per_sample(found), found.need.total))
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
