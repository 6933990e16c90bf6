"""The demo: dense, narrower dense and sparse contenders on real text, each at its best.

Every number of a budget is here, with its reason; what is printed states them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.reporting.contenders import MEASURED, Contender, common_loss
from analysis.reporting.summary import best_of
from sparse_train.weightless import weightless

if TYPE_CHECKING:
    from analysis.comparing.conclusion import Conclusion
    from hwsim import Workload
    from sparse_train.runs.config import TrainConfig
    from sparse_train.tasks import Prepared

# Two densities: what a narrower model could still match, and where it should fall behind.
DENSITIES = (0.2, 0.1)
ALGORITHMS = ("static", "set", "rigl")
# Sparse models want larger rates than dense ones; these span both, a factor of 2.5 apart. Each is
# tried at full length: short runs end on the plateau where only the frequencies of the tokens are
# known, and rank rates by how fast they get there.
RATES = (1e-3, 2.5e-3, 6e-3)
STEPS = 750
# A narrower step costs little, so that the narrower model can afford more of them. It gets the
# best of these, by time to the loss that all contenders reach.
NARROW_LENGTHS = (1, 2)
# Of a run, every 50 steps; each costs as much as five steps.
EVALUATIONS = 15
# Two processes of one thread each: a small network leaves the second thread of one idle.
PROCESSES = 2
SEED = 0
PRESET = "tiny"
# Two layers of `tiny`, on bytes in short windows: they learn something within a minute. Of each
# window 30 % are guessed, not BERT's 15 %: twice the signal for the same time.
LAYERS = 2
TASK = {"vocabulary_size": 262, "tokens": 32, "hidden_share": 0.3, "evaluation_windows": 128}
BATCH_SIZE = 8
UPDATE_INTERVAL = 25
# What `sparsify` masks by default in this model: all but embeddings and the output layer.
MASKED = ("encoder.", "transform")
WARMUP_SHARE = 0.06
MAIN_STUDY = "main_bert.json"
# What a kill can cost, in steps: seconds.
CHECKPOINT_INTERVAL = 200


@dataclass(frozen=True)
class Budget:
    """How much training a demo does."""

    steps: int = STEPS
    rates: tuple[float, ...] = RATES
    densities: tuple[float, ...] = DENSITIES
    algorithms: tuple[str, ...] = ALGORITHMS
    narrow_lengths: tuple[int, ...] = NARROW_LENGTHS
    evaluations: int = EVALUATIONS


# Every part of the demo, too short to mean anything.
QUICK = Budget(
    steps=40, rates=(2e-3, 4e-3), densities=(0.2,), algorithms=("static", "rigl"),
    narrow_lengths=(1, 2), evaluations=4,
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A contender before it has run.

    Attributes:
        name: its label.
        family: its colour, one of contenders.FAMILIES.
        algorithm: "dense" for none.
        density: of the masked weights; for a narrower model, of the sparse one that it matches.
        narrow: whether it is a dense model as cheap as the sparse one of that density.
        lengths: multiples of the budget's steps that it is given; the best one counts.
        sizes: of the model, where they are not the preset's.
    """

    name: str
    family: str
    algorithm: str
    density: float
    narrow: bool = False
    lengths: tuple[int, ...] = (1,)
    sizes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Job:
    """One training run: what the worker needs to know."""

    entry: Entry
    rate: float
    steps: int
    evaluations: int
    folder: Path


@dataclass(frozen=True)
class Choice:
    """A learning rate and why: rate → the lowest validation loss of its run."""

    rate: float
    losses: dict[float, float]

    @property
    def at_an_end(self) -> bool:
        """Whether the best rate was the smallest or largest tried: a better one may lie beyond."""
        return self.rate in (min(self.losses), max(self.losses))


def entries(budget: Budget) -> list[Entry]:
    """The contenders: dense, and for each density a narrower dense and the sparse ones."""
    from hwsim.units import percent

    labels = {"static": "static", "set": "SET", "rigl": "RigL"}
    made = [Entry("dense", "dense", "dense", 1.0)]
    for density in budget.densities:
        made.append(
            Entry(
                f"narrower {percent(density)}", "narrower dense", "dense", density, True,
                budget.narrow_lengths, tuple(narrower_sizes(density).items()),
            )
        )  # fmt: skip
    for name in budget.algorithms:
        for density in budget.densities:
            made.append(Entry(f"{labels.get(name, name)} {percent(density)}", name, name, density))
    return made


def tuning_jobs(budget: Budget, made: Sequence[Entry], folder: Path) -> list[Job]:
    """Every contender at every rate, the costly ones first."""
    return [
        _job(budget, entry, rate, 1, folder)
        for entry in _costly_first(made)
        for rate in budget.rates
    ]


def final_jobs(
    budget: Budget, made: Sequence[Entry], choices: dict[str, Choice], folder: Path
) -> list[Job]:
    """The runs that count: each contender at its rate, in every length that it is given.

    Those of the budget's own length are the tuning's, and only read again.
    """
    return [
        _job(budget, entry, choices[entry.name].rate, length, folder)
        for entry in _costly_first(made)
        for length in sorted(entry.lengths, reverse=True)
    ]


def _job(budget: Budget, entry: Entry, rate: float, length: int, folder: Path) -> Job:
    steps = budget.steps * length
    place = folder / slug(entry.name) / f"{steps}-steps-at-{rate:g}"
    return Job(entry, rate, steps, budget.evaluations * length, place)


def choose(jobs: Sequence[Job], losses: Sequence[float]) -> dict[str, Choice]:
    """Contender → the rate whose run had the lowest validation loss; the smaller of equals.

    A run that diverged (NaN) never wins unless all did.
    """
    tried: dict[str, dict[float, float]] = {}
    for job, loss in zip(jobs, losses, strict=True):
        tried.setdefault(job.entry.name, {})[job.rate] = loss if loss == loss else float("inf")
    return {
        name: Choice(min(sorted(rates), key=lambda rate: rates[rate]), rates)
        for name, rates in tried.items()
    }


def keep_best(runs: Sequence[tuple[Entry, Contender]], device: str) -> list[Contender]:
    """One run per entry: of several lengths the one that reaches the common loss first.

    The common loss is the lowest that every entry reaches with one of its runs.
    """
    grouped: dict[str, list[Contender]] = {}
    for entry, run in runs:
        grouped.setdefault(entry.name, []).append(run)
    loss = common_loss([min(group, key=lambda run: run.best_loss) for group in grouped.values()])
    return [best_of(group, device, loss) for group in grouped.values()]


def main_study() -> list[str]:
    """What the study with seeds enough found: the conclusions of its stored table, if it is there.

    The demo has one seed, so that nothing follows from it.
    """
    from analysis.comparing import stored

    table = Path(__file__).parents[1] / "docs" / "results" / MAIN_STUDY
    anecdote = "This demo is one seed: an anecdote, from which nothing follows."
    if not table.is_file():
        return [f"{anecdote} docs/results has the studies."]
    found = stored.load(table).table
    return [
        f"{anecdote} The main study, {len(found.plan.seeds)} seeds of "
        f"{found.plan.base.steps} steps and more, found in times as fast to "
        f"{found.conclusions[0].target} (95 % intervals, verdicts after Holm's correction):",
        *(conclusion.line for conclusion in found.conclusions),
        f"{_ideas(found.conclusions)}: docs/results/{Path(MAIN_STUDY).stem}.md.",
    ]


def _ideas(conclusions: Sequence[Conclusion]) -> str:
    """Which of the new ideas were faster than the best known algorithm, and where."""
    from analysis.comparing.conclusion import Verdict

    ahead = [
        f"{name} on {one.device} ({finding.verdict})"
        for one in conclusions
        for name, finding in one.over_known.items()
        if finding.verdict in (Verdict.FASTER, Verdict.SEEN)
    ]
    return f"Ahead of RigL: {', '.join(ahead)}" if ahead else "No idea is shown faster than RigL"


def notes(budget: Budget, choices: dict[str, Choice], *, quick: bool = False) -> list[str]:
    """What a reader must know before the numbers."""
    rates = ", ".join(f"{rate:g}" for rate in budget.rates)
    lines = ["Quick: too short for any number here to mean anything."] if quick else []
    lines += [
        f"Learning rate: each of the {len(choices)} contenders had a run of {budget.steps} steps "
        f"at each of {rates}; shown is the one with the lowest validation loss.",
        f"{MEASURED}: what the steps took on this machine, one thread and {PROCESSES} runs at a "
        "time; masked layers ran on the sparse CPU kernels.",
    ]
    if len(budget.narrow_lengths) > 1:
        longer = " and ".join(str(budget.steps * n) for n in budget.narrow_lengths if n > 1)
        lines.append(
            f"Each narrower dense model then trained for {longer} steps too, at its rate; shown "
            "is the run that reaches the common loss first."
        )
    ends = [name for name, choice in choices.items() if choice.at_an_end]
    if ends:
        lines.append(
            f"At the end of the rates tried, so that a better one may lie beyond: "
            f"{', '.join(ends)}."
        )
    return lines


def work(job: Job, tell: Callable[[int, str], None]) -> float:
    """Trains one job, or goes on with it; its best validation loss. Runs in a worker process."""
    from sparse_train.runs.run import Diverged
    from sparse_train.trainer import train

    try:
        record = train(
            config(job), job.folder, progress=lambda p: tell(p.step, job.entry.name), task=_task()
        )
    except Diverged:
        return float("nan")
    tell(job.steps, job.entry.name)
    after = record.evaluations.filter(record.evaluations["step"] > 0)
    return min(after["loss"].to_list())


@functools.cache
def _task() -> Prepared:
    """The text, read once in each process: it takes as long as sixty training steps."""
    from sparse_train.tasks import make_task

    return make_task("mlm", TASK).prepare()


def config(job: Job) -> TrainConfig:
    """The settings of a job's run."""
    from sparse_train.runs.config import TrainConfig

    sparse: dict[str, Any] = {}
    if job.entry.algorithm != "dense":
        sparse = {
            "density": job.entry.density, "update_interval": UPDATE_INTERVAL, "compute": "sparse",
        }  # fmt: skip
        if job.entry.algorithm == "static":
            sparse.pop("update_interval")
    return TrainConfig(
        preset=PRESET, task_options=TASK, model_options={"layers": LAYERS, **dict(job.entry.sizes)},
        algorithm=job.entry.algorithm, distribution="erk", steps=job.steps,
        batch_size=BATCH_SIZE, learning_rate=job.rate,
        warmup_steps=max(1, round(WARMUP_SHARE * job.steps)),
        eval_interval=max(1, job.steps // job.evaluations),
        checkpoint_interval=CHECKPOINT_INTERVAL, seed=SEED, threads=1, **sparse,
    )  # fmt: skip


def narrower_sizes(density: float) -> dict[str, int]:
    """Sizes of the dense model whose step costs nearest to the sparse one's, in FLOPs.

    Widths are multiples of 8. Of the sparse step, what is not maskable is dense.
    """
    from sparse_train.models import bert

    full = bert.BertConfig.preset(PRESET, layers=LAYERS, vocabulary=TASK["vocabulary_size"])
    step = _step(full)
    maskable = sum(
        op.dense_flops for op in step if op.kind == "gemm" and op.name.startswith(MASKED)
    )
    target = step.dense_flops - (1 - density) * maskable
    widths = range(8, full.width + 1, 8)
    flops = {width: _step(full.scaled(width)).dense_flops for width in widths}
    best = full.scaled(min(widths, key=lambda width: abs(flops[width] - target)))
    return {"width": best.width, "ffn": best.ffn, "heads": best.heads}


def _step(sizes: Any) -> Workload:
    """A training step of a model of these sizes on the demo's batches."""
    import torch

    from sparse_train.models import bert
    from sparse_train.workload import workload

    with weightless():
        shape = (BATCH_SIZE, int(TASK["tokens"]))
        tokens = torch.zeros(shape, dtype=torch.long)
        return workload(bert.Bert(sizes), {"input_ids": tokens, "labels": tokens})


def slug(name: str) -> str:
    """A contender's name as a folder's.

    >>> slug("RigL 10 %")
    'rigl-10'
    """
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _costly_first(made: Sequence[Entry]) -> list[Entry]:
    """Long runs first, so that no process idles at the end."""
    return sorted(made, key=lambda entry: entry.narrow)
