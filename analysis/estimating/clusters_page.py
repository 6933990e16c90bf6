"""What a cluster makes of a step, for people and machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.display import tables
from analysis.display.console import print_json, progress_bar, stdout
from analysis.estimating.clusters import Answer, Asked, answered, equal_time
from analysis.estimating.pricing import is_giant
from hwsim import units
from hwsim.cluster.machine import Cluster
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.search import per_sample
from hwsim.cluster.step import ClusterStep
from hwsim.cluster.trace import write_trace

_COLUMNS = ("", "plan", "a step", "batch of a card", "waiting", "sent", "memory")
_MOST = 6  # plans of a search that are shown


def show(asked: Asked, densities: Sequence[float], *, trace: Path | None, as_json: bool) -> None:
    """Prints the dense and the sparse step under a plan, or the plans that fit.

    Args:
        trace: where the timeline of the first density's fastest plan goes.

    Raises:
        InputError: a plan that does not divide the cards or the model, or that does not fit.
    """
    with progress_bar(f"pricing {asked.what.name}", 1 + len(densities)) as done:
        cluster, dense, answers = answered(asked, densities, done)
    if trace is not None:
        first = answers[0].found[0]
        write_trace(trace, first.tasks, first.ends)
    if as_json:
        print_json(_json(asked, cluster, dense, answers))
    else:
        _print(asked, cluster, dense, answers)


def _json(
    asked: Asked, cluster: Cluster, dense: Answer, answers: Sequence[Answer]
) -> dict[str, Any]:
    """The answers with every part of the fastest step."""
    first = answers[0]
    content: dict[str, Any] = {
        "command": "estimate", "model": asked.what.name, "cluster": asked.name,
        "gpus": asked.gpus, "density": first.density, "memory_bytes": cluster.memory_bytes,
        "plans": {label: [_described(s) for s in one.found]
                  for label, one in (("dense", dense), ("sparse", first))},
        "equal_time_gpus": equal_time(first, dense),
        "densities": [
            {"density": one.density, "plan": str(one.found[0].plan), "seconds": one.mean_s,
             "seconds_per_sample_batch": one.sample_s,
             "growth_step_seconds": None if one.grown is None else one.grown.seconds,
             "run_seconds": one.run_s, "equal_time_gpus": equal_time(one, dense),
             "cards": [_described(s) for s in one.cards]}
            for one in (dense, *answers)
        ],
        "note": asked.what.note,
    }  # fmt: skip
    if asked.run is not None:
        content["run"] = {"steps": asked.run.steps, "schedule": asked.run.schedule}
    return content


def _described(step: ClusterStep) -> dict[str, Any]:
    return {
        "plan": str(step.plan), "gpus": step.plan.cards, "seconds": step.seconds,
        "compute_seconds": step.compute_s, "seconds_per_sample_batch": per_sample(step),
        "sent_bytes": step.sent_bytes, "memory_bytes": step.need.total,
        "state_bytes": step.need.states, "activation_bytes": step.need.activations,
    }  # fmt: skip


def _print(asked: Asked, cluster: Cluster, dense: Answer, answers: Sequence[Answer]) -> None:
    """Prints the answers: a table, what needs memory, how many cards a density saves."""
    console = stdout()
    title = f"{asked.what.name} on {cluster.cards} cards of {cluster.name}"
    rows = [_row("dense", step) for step in dense.found[:_MOST]]
    single = len(answers) == 1
    for one in answers:
        label = "sparse" if single else units.percent(one.density)
        rows += [_row(label, step) for step in one.found[: _MOST if single else 1]]
        if one.grown is not None:
            rows.append(_row("growth step", one.grown))
    console.print(tables.table(title, _COLUMNS, rows, text=("plan",)))
    console.print(_cards_table(dense, answers))
    for one in answers:
        console.print(_sentence(one, dense, cluster.cards), style="bold")
    for one in answers:
        if one.run_s is not None and dense.run_s is not None and asked.run is not None:
            console.print(
                f"{asked.run.steps:,} steps to density {units.percent(one.density)} "
                f"({asked.run.schedule}): {units.seconds(one.run_s)}, "
                f"{units.percent(one.run_s / dense.run_s)} of the dense run's "
                f"{units.seconds(dense.run_s)}.",
                style="bold",
            )
    if asked.what.note:
        console.print(asked.what.note, style="bold")
    console.print("Unverified for sparse steps: only dense ones have been held against clusters.")
    if is_giant(asked.what):
        console.print(
            "Masks are known by their statistics: prices are expectations over random masks of "
            "this pattern and density."
        )


def _row(label: str, step: ClusterStep) -> tuple[str, ...]:
    return (
        label, _words(step.plan), units.seconds(step.seconds), units.seconds(per_sample(step)),
        units.percent(step.exposed_s / step.seconds), units.quantity(step.sent_bytes, "B"),
        units.quantity(step.need.total, "B"),
    )  # fmt: skip


def _words(plan: ParallelPlan) -> str:
    """A plan that a narrow table breaks between words."""
    return str(plan).replace(",", ", ")


def _cards_table(dense: Answer, answers: Sequence[Answer]) -> Any:
    """Fewer and fewer cards against all of them dense."""
    rows = [
        (
            units.percent(one.density), str(step.plan.cards), _words(step.plan),
            units.seconds(per_sample(step)), units.percent(per_sample(step) / dense.sample_s),
            units.quantity(step.need.total, "B"),
        )
        for one in answers
        for step in one.cards
    ]  # fmt: skip
    columns = ("density", "cards", "plan", "batch of a card", "of dense on all", "memory")
    return tables.table("With fewer cards", columns, rows, text=("plan",))


def _sentence(one: Answer, dense: Answer, cards: int) -> str:
    share = units.percent(one.sample_s / dense.sample_s)
    text = (
        f"At density {units.percent(one.density)} a sample takes {share} of the dense time on as "
        "many cards"
    )
    if one.updates:
        text += f", mask updates every {round(1 / one.updates)} steps included"
    enough = equal_time(one, dense)
    if enough is None or enough == cards:
        return f"{text}; half the cards would be slower than all of them dense, or not enough."
    saved = cards - enough
    return f"{text}; {enough} cards are as fast as {cards} dense: {saved} are saved."
