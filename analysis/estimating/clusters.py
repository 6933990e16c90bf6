"""A training step on many cards: time, what its collectives cost, and what a card must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim import Workload, units
from hwsim.cluster.machine import Cluster, load_cluster
from hwsim.cluster.memory import refuse
from hwsim.cluster.plan import Plan, parse_plan
from hwsim.cluster.search import per_sample, search
from hwsim.cluster.step import ClusterStep, cluster_step
from hwsim.errors import InputError

if TYPE_CHECKING:
    from analysis.estimating.pricing import Setting
    from analysis.estimating.subject import Subject

AUTO = "auto"


def show(
    what: Subject, name: str, gpus: int, parallel: str, density: float, setting: Setting,
    *, fit: bool, trace: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Prints the dense and the sparse step under a plan, or the plans that fit.

    Raises:
        InputError: a plan that does not divide the cards or the model, or that does not fit.
    """
    from analysis.display.console import stdout
    from analysis.estimating.pricing import is_giant, price

    cluster = load_cluster(name).of(gpus)
    chosen = AUTO if fit or parallel == AUTO else parallel
    plan = None if chosen == AUTO else parse_plan(chosen, gpus)
    _, sparse = price(what, [], density, setting, by_statistics=is_giant(what))
    found: dict[str, list[ClusterStep]] = {}
    for label, step in (("dense", what.step), ("sparse", sparse)):
        if plan is None:
            found[label] = search(cluster, step)
        else:
            one = cluster_step(cluster, step, plan)
            refuse(one.need.total, cluster.memory_bytes, plan)
            found[label] = [one]
    if trace is not None:
        from hwsim.cluster.trace import write_trace

        write_trace(trace, found["sparse"][0].tasks, found["sparse"][0].ends)
    fewer = _fewer(load_cluster(name), sparse, found, plan)
    if as_json:
        from analysis.display.console import print_json

        return print_json({
            "command": "estimate", "model": what.name, "cluster": name, "gpus": gpus,
            "density": density, "memory_bytes": cluster.memory_bytes,
            "plans": {k: [_described(s) for s in v] for k, v in found.items()},
            "equal_time_gpus": fewer,
        })  # fmt: skip
    _print(what, cluster, found, fewer, density)
    if is_giant(what):
        stdout().print(
            "Masks are known by their statistics: prices are expectations over random masks of "
            "this pattern and density."
        )
    return None


def _fewer(
    whole: Cluster, sparse: Workload, found: Mapping[str, Sequence[ClusterStep]], plan: Plan | None
) -> int | None:
    """The fewest cards (halved again and again) on which sparse samples take dense's time."""
    dense, one = found["dense"][0], found["sparse"][0]
    fewest, cards = None, one.plan.cards
    while True:
        if not one.fits or per_sample(one) > per_sample(dense) * (1 + 1e-9):
            break
        fewest = cards
        if cards % 2:
            break
        cards //= 2
        try:
            cluster = whole.of(cards)
            if plan is None:
                one = search(cluster, sparse)[0]
            else:
                one = cluster_step(cluster, sparse, parse_plan(_without_dp(plan), cards))
        except InputError:
            break
    return fewest


def _without_dp(plan: Plan) -> str:
    return ",".join(word for word in str(plan).split(",") if not word.startswith("dp="))


def _described(step: ClusterStep) -> dict[str, Any]:
    return {
        "plan": str(step.plan), "seconds": step.seconds, "compute_seconds": step.compute_s,
        "seconds_per_sample_batch": per_sample(step), "sent_bytes": step.sent_bytes,
        "memory_bytes": step.need.total, "state_bytes": step.need.states,
        "activation_bytes": step.need.activations,
    }  # fmt: skip


def _print(
    what: Subject, cluster: Cluster, found: Mapping[str, Sequence[ClusterStep]],
    fewer: int | None, density: float,
) -> None:  # fmt: skip
    from analysis.display import tables
    from analysis.display.console import stdout

    console = stdout()
    columns = ("", "plan", "a step", "batch of a card", "waiting", "sent", "memory")
    rows = [
        (
            label, str(step.plan), units.seconds(step.seconds),
            units.seconds(per_sample(step)), units.percent(step.exposed_s / step.seconds),
            units.quantity(step.sent_bytes, "B"), units.quantity(step.need.total, "B"),
        )
        for label, steps in found.items()
        for step in steps[:6]
    ]  # fmt: skip
    title = f"{what.name} on {cluster.cards} cards of {cluster.name}"
    console.print(tables.table(title, columns, rows, text=("plan",)))
    share = per_sample(found["sparse"][0]) / per_sample(found["dense"][0])
    console.print(
        f"At density {units.percent(density)} a sample takes {units.percent(share)} of the dense "
        "time on as many cards.",
        style="bold",
    )
    if fewer is not None and fewer < cluster.cards:
        console.print(f"{fewer} cards are as fast sparse as {cluster.cards} dense.", style="bold")
    console.print("Unverified for sparse steps: only dense ones have been held against clusters.")
