"""What a cluster makes of a step, for people and machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.display import tables
from analysis.display.console import print_json, progress_bar, stdout
from analysis.estimating import layer_answers
from analysis.estimating.clusters import Answer, Asked, answered, equal_time
from analysis.estimating.pricing import is_giant
from hwsim import units
from hwsim.cluster.machine import Cluster
from hwsim.cluster.plan import ParallelPlan
from hwsim.cluster.search import per_sample
from hwsim.cluster.step import ClusterStep
from hwsim.cluster.trace import write_trace

if TYPE_CHECKING:
    from analysis.estimating.subject import Subject
    from hwsim.answers.gpu_choice import LayerChoice

_COLUMNS = ("", "plan", "a step", "batch of a card", "waiting", "sent", "memory")
_MOST = 6  # plans of a search that are shown
_HELD = ("weights", "gradients", "moments", "masks", "indices", "packed", "activations")


def show(
    asked: Asked, densities: Sequence[float], *, trace: Path | None, as_json: bool,
    made: Callable[[int], Subject] | None = None,
) -> None:  # fmt: skip
    """Prints the dense and the sparse step under a plan, or the plans that fit.

    Args:
        made: a model with a batch of so many, where the batch is to be found too.
        trace: where the timeline of the first density's fastest plan goes.

    Raises:
        InputError: a plan that does not divide the cards or the model, or that does not fit.
    """
    if made is not None:
        from analysis.estimating import fitting

        with progress_bar(f"batches of {asked.what.name}", fitting.MOST.bit_length()) as done:
            asked, tried = fitting.fitted(asked, made, densities[0], done)
        asked = replace(asked, tried=tried)
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
    if asked.tried:
        content["batches"] = [{"batch": t.batch, "seconds_per_sample": t.sample_s}
                              for t in asked.tried]  # fmt: skip
    content["layers"] = layer_answers.as_json(_choices(asked, cluster, first))
    if asked.run is not None:
        content["run"] = {"steps": asked.run.steps, "schedule": asked.run.schedule}
    return content


def _described(step: ClusterStep) -> dict[str, Any]:
    return {
        "plan": str(step.plan), "gpus": step.plan.cards, "seconds": step.seconds,
        "compute_seconds": step.compute_s, "seconds_per_sample_batch": per_sample(step),
        "sent_bytes": step.sent_bytes, "memory_bytes": step.need.total,
        "state_bytes": step.need.states, "activation_bytes": step.need.activations,
        "needs": {name: getattr(step.need, name) for name in _HELD},
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
    console.print(_memory_table(cluster, dense, answers))
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
    if asked.tried:
        console.print(_fitted(asked), style="bold")
    for line in _reasons(asked, cluster, answers[0]):
        console.print(line)
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


def _memory_table(cluster: Cluster, dense: Answer, answers: Sequence[Answer]) -> Any:
    """What the fullest card holds under each fastest plan."""
    rows = []
    for one in (dense, *answers):
        need = one.found[0].need
        held = [units.quantity(getattr(need, n), "B") if getattr(need, n) else "–" for n in _HELD]
        rows.append((units.percent(one.density), *held))
    title = f"Memory of a card, {units.quantity(cluster.memory_bytes, 'B')}"
    return tables.table(title, ("density", *_HELD), rows)


def _fitted(asked: Asked) -> str:
    """Which batch was found, and what the others would take."""
    took = {t.batch: t.sample_s for t in asked.tried}
    best = min((s, b) for b, s in took.items() if s is not None)[1]
    said = ", ".join(f"{b}: {'does not fit' if s is None else units.seconds(s) + ' a sample'}"
                     for b, s in took.items())  # fmt: skip
    return f"A batch of {best} a card is fastest of those that fit ({said})."


def _choices(asked: Asked, cluster: Cluster, one: Answer) -> Sequence[LayerChoice]:
    """Of each group of masked layers, the kernel that one card by itself takes, and why."""
    if one.step is None:
        return ()
    found = layer_answers.answers([cluster.device], asked.what.step, one.step)
    return found.get(cluster.device.name, ())


def _reasons(asked: Asked, cluster: Cluster, one: Answer) -> Iterator[str]:
    choices = _choices(asked, cluster, one)
    if not choices:
        return
    yield (
        f"Kernels of one card for a micro-batch by itself, density {units.percent(one.density)}:"
    )
    for title, reasons in layer_answers.paragraphs(choices)[:_MOST]:
        yield f"{title} {'; '.join(reasons)}."


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
