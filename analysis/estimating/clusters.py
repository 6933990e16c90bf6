"""A training step on many cards: time, what its collectives cost, and what a card must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hwsim import Mask, Workload
from hwsim.cluster.machine import Cluster, load_cluster
from hwsim.cluster.memory import refuse
from hwsim.cluster.parts import parts_of
from hwsim.cluster.plan import ParallelPlan, parse_plan, plan_words
from hwsim.cluster.run import run_time
from hwsim.cluster.search import per_sample, search
from hwsim.cluster.step import ClusterStep, cluster_step, timed
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.estimating.pricing import Setting
    from analysis.estimating.subject import Subject

AUTO = "auto"


@dataclass(frozen=True)
class TrainingLength:
    """Steps of a whole training, and how density gets to where it ends."""

    steps: int
    schedule: str


@dataclass(frozen=True)
class Answer:
    """What a density makes of the step.

    Attributes:
        found: plans, the fastest first.
        grown: of the fastest plan, the step in which masks are updated.
        updates: share of the steps that are such steps.
        step: of one card, not shared out.
        cards: (fewer) cards and their fastest plan, from all cards down to the first number that
            is slower than all of them dense.
        run_s: a whole training under the fastest plan.
    """

    density: float
    found: list[ClusterStep]
    grown: ClusterStep | None = None
    updates: float = 0.0
    cards: list[ClusterStep] = field(default_factory=list)
    run_s: float | None = None
    step: Workload | None = None

    @property
    def mean_s(self) -> float:
        """Seconds of a step, with its share of mask updates."""
        plain = self.found[0].seconds
        grown = plain if self.grown is None else self.grown.seconds
        return plain + self.updates * (grown - plain)

    @property
    def sample_s(self) -> float:
        """Seconds that a card's batch takes of the whole cluster."""
        return self.mean_s / self.found[0].seconds * per_sample(self.found[0])


@dataclass(frozen=True)
class Tried:
    """A batch of a card.

    Attributes:
        sample_s: seconds a sample takes of the whole cluster; None where no plan fits.
    """

    batch: int
    sample_s: float | None


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    Attributes:
        moment_bytes: of the optimizer's state a weight.
        tried: batches of a card, where `--fit` looked for one.
        drawn: density → masks, where they were made before: they do not depend on the batch.
    """

    what: Subject
    name: str
    gpus: int
    parallel: str
    setting: Setting
    moment_bytes: float
    run: TrainingLength | None = None
    tried: Sequence[Tried] = ()
    drawn: Mapping[float, dict[str, Mask]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def base(self) -> ParallelPlan:
        """What all plans of a search have in common."""
        words = plan_words(rest) if (rest := self.parallel.partition(",")[2]) else {}
        for word in (
            "form", "dp", "tp", "pp", "sequence", "interleave", "recompute", "every", "shards"
        ):  # fmt: skip
            if word in words:
                raise InputError(
                    f"parallel: auto searches {word} itself; allowed beside it are m=, values=, "
                    "packed= and compact="
                )
        words.setdefault("moment_bytes", self.moment_bytes)
        return ParallelPlan(**words)

    @property
    def searches(self) -> bool:
        """Whether the split is to be found."""
        return self.parallel.partition(",")[0] == AUTO

    def plan(self, cards: int, *, dp: bool = True) -> ParallelPlan:
        """How the step is split over so many cards."""
        text = self.parallel
        if not dp:
            text = ",".join(word for word in text.split(",") if not word.startswith("dp="))
        plan = parse_plan(text, cards)
        if "moment_bytes" not in text:
            plan = replace(plan, moment_bytes=self.moment_bytes)
        return plan


def answered(
    asked: Asked, densities: Sequence[float], done: Callable[[int, str], None]
) -> tuple[Cluster, Answer, list[Answer]]:
    """The cluster, the dense step and that of each density, under a plan or those that fit.

    Raises:
        InputError: a plan that does not divide the cards or the model, or that does not fit.
    """
    whole = load_cluster(asked.name)
    cluster = whole.of(asked.gpus)
    dense = Answer(1.0, found_steps(asked, cluster, asked.what.step, {}, dense=True))
    dense = replace(dense, run_s=_dense_run(asked, dense))
    done(1, "dense")
    answers = []
    for density in densities:
        answers.append(_answer(asked, whole, cluster, density, dense))
        done(1 + len(answers), f"density {density:g}")
    return cluster, dense, answers


def _answer(
    asked: Asked, whole: Cluster, cluster: Cluster, density: float, dense: Answer
) -> Answer:
    sparse = sparse_step(asked, density)
    known: dict[tuple, Any] = {}  # what the step's parts cost a card
    found = found_steps(asked, cluster, sparse, known)
    answer = Answer(density, found, step=sparse)
    grown = _grown(asked, sparse)
    if grown is not None:
        one = cluster_step(cluster, grown, found[0].plan)
        answer = replace(answer, grown=one, updates=1.0 / asked.setting.update_interval)
    cards = list(_fewer(asked, whole, sparse, dense, found[0], known))
    return replace(answer, cards=cards, run_s=_run(asked, cluster, density, found[0].plan))


def sparse_step(asked: Asked, density: float) -> Workload:
    """One card's step under masks of a density."""
    if density == 1.0:
        return asked.what.step
    masks = asked.drawn.get(density)
    return asked.what.step.with_masks(masks_at(asked, density) if masks is None else masks)


def masks_at(asked: Asked, density: float) -> dict[str, Mask]:
    """Of every masked layer, drawn, or of a giant known by their statistics."""
    from analysis.estimating.pricing import is_giant, masks_of

    return masks_of(asked.what, [], density, asked.setting, by_statistics=is_giant(asked.what))


def _grown(asked: Asked, sparse: Workload) -> Workload | None:
    """The step in which masks are updated, for an algorithm that does so."""
    if not asked.setting.update_interval or not sparse.masks:
        return None
    from sparse_train.algorithms import ALGORITHMS

    rule = ALGORITHMS.get(asked.setting.algorithm)
    return sparse.growth_step(dense_gradient=rule.gradient != "never")


def found_steps(
    asked: Asked,
    cluster: Cluster,
    step: Workload,
    known: dict[tuple, Any],
    *,
    dense: bool = False,
) -> list[ClusterStep]:
    """A step under the plan that was asked for, or under those that a search finds.

    Args:
        known: what the step's parts cost a card, shared between calls.
        dense: whether the step has no masks, so that there is nothing to pack.

    Raises:
        InputError: a plan that does not divide the cards or the model, or that does not fit.
    """
    if asked.searches:
        # Without masks there is nothing to pack.
        base = replace(asked.base, compact=False) if dense else asked.base
        return search(cluster, step, base, known)
    plan = asked.plan(cluster.cards)
    plan_of_step = replace(plan, compact=False) if dense else plan
    one = timed(cluster, parts_of(step), plan_of_step, known)
    if not dense or not plan.compact:
        refuse(one.need.total, cluster.memory_bytes, plan)
    return [one]


def _fewer(
    asked: Asked,
    whole: Cluster,
    sparse: Workload,
    dense: Answer,
    first: ClusterStep,
    known: dict[tuple, Any],
) -> Iterator[ClusterStep]:
    """All cards, then half of them, and so on, as long as samples take no longer than dense's."""
    one, cards = first, first.plan.cards
    while one.fits:
        yield one
        if per_sample(one) > dense.sample_s * (1 + 1e-9) or cards % 2:
            return
        cards //= 2
        try:
            cluster = whole.of(cards)
            if asked.searches:
                one = search(cluster, sparse, asked.base, known, fastest=True)[0]
            else:
                one = timed(cluster, parts_of(sparse), asked.plan(cards, dp=False), known)
        except InputError:
            return


def equal_time(answer: Answer, dense: Answer) -> int | None:
    """The fewest cards (halved again and again) on which sparse samples take dense's time."""
    enough = [one.plan.cards for one in answer.cards
              if per_sample(one) <= dense.sample_s * (1 + 1e-9)]  # fmt: skip
    return min(enough, default=None)


def _dense_run(asked: Asked, dense: Answer) -> float | None:
    return None if asked.run is None else dense.found[0].seconds * asked.run.steps


def _run(asked: Asked, cluster: Cluster, density: float, plan: ParallelPlan) -> float | None:
    """Seconds of a whole training whose density falls along a schedule."""
    if asked.run is None:
        return None
    pairs = run_pairs(asked, density)
    return run_time(cluster, pairs, plan).seconds


def run_pairs(asked: Asked, density: float) -> Iterator[tuple[Workload, int]]:
    """(step, how many) of a training to `density`, growth steps among them."""
    from analysis.planning.prices import densities_over

    assert asked.run is not None
    values, shares = densities_over(asked.run.schedule, density)
    ends = [round(asked.run.steps * end) for end in shares.cumsum()]
    for value, start, end in zip(values, [0, *ends], ends, strict=False):
        step = sparse_step(asked, float(value))
        grown = _grown(asked, step)
        updates = (end - start) // asked.setting.update_interval if grown is not None else 0
        yield step, end - start - updates
        if grown is not None:
            yield grown, updates
