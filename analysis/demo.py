"""The demo: a comparison on real text that fits into five minutes, and what the main study found.

Every number of its plan is here, with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.comparing.plan import ComparisonPlan
from analysis.comparing.variants import Variant

if TYPE_CHECKING:
    from analysis.comparing.conclusion import Conclusion

# Sparse models want larger rates than dense ones. The best is at an end of these two, so that each
# contender gets at least one more.
RATES = (4e-3, 8e-3)
STEPS = 600
# Of a run, every 40 steps; each costs as much as five steps.
EVALUATIONS = 15
# Two processes of one thread each: a small network leaves the second thread of one idle.
PROCESSES = 2
# Two layers of `tiny`, on bytes in short windows: they learn something within a minute. Of each
# window 30 % are guessed, not BERT's 15 %: twice the signal for the same time.
TASK = {"vocabulary_size": 262, "tokens": 32, "hidden_share": 0.3, "evaluation_windows": 128}
MODEL = {"layers": 2}
BATCH_SIZE = 8
UPDATE_INTERVAL = 25
MAIN_STUDY = "main_bert.json"


def plan(*, quick: bool = False) -> ComparisonPlan:
    """What the demo compares; `quick`: every part of it, too short to mean anything."""
    from sparse_train.runs.config import TrainConfig

    base = TrainConfig(
        task="mlm", task_options=TASK, preset="tiny", model_options=MODEL, steps=STEPS,
        batch_size=BATCH_SIZE,
    )  # fmt: skip
    made = ComparisonPlan(
        base, tuple(Variant(name) for name in ("static", "set", "rigl")), densities=(0.2,),
        seeds=(0,), rates=RATES, update_interval=UPDATE_INTERVAL, evaluations=EVALUATIONS,
    )  # fmt: skip
    if not quick:
        return made
    return replace(
        made, base=replace(base, steps=40, warmup_steps=None), variants=made.variants[::2],
        evaluations=4, narrower_lengths=(1,), most_rates=len(RATES),
    )  # fmt: skip


def main_study() -> list[str]:
    """What the study with seeds enough found: the conclusions of its stored table, if it is there.

    The demo has one seed, so that nothing follows from it.
    """
    from analysis import results
    from analysis.comparing.stored import ComparisonPage

    table = Path(__file__).parents[1] / "docs" / "results" / MAIN_STUDY
    anecdote = "This demo is one seed: an anecdote, from which nothing follows."
    if not table.is_file():
        return [f"{anecdote} docs/results has the studies."]
    stored = results.load(table)
    assert isinstance(stored, ComparisonPage)
    found = stored.table
    return [
        f"{anecdote} The main study, {len(found.plan.seeds)} seeds of "
        f"{found.plan.base.steps} steps and more, found in times as fast to "
        f"{found.conclusions[0].target} (95 % intervals, verdicts after Holm's correction):",
        *(conclusion.line for conclusion in found.conclusions),
        f"{_ideas(found.conclusions)}: docs/results/{Path(MAIN_STUDY).stem}.md.",
    ]


def _ideas(conclusions: Sequence[Conclusion]) -> str:
    """Which contenders were faster than the best known algorithm, and where."""
    from analysis.comparing.conclusion import Verdict

    ahead: dict[str, list[str]] = {}
    for one in conclusions:
        for name, finding in one.over_known.items():
            if finding.verdict in (Verdict.FASTER, Verdict.SEEN):
                ahead.setdefault(name, []).append(f"{one.device} ({finding.verdict})")
    where = [f"{name} on {', '.join(devices)}" for name, devices in ahead.items()]
    return f"Ahead of RigL: {'; '.join(where)}" if where else "No idea is shown faster than RigL"
