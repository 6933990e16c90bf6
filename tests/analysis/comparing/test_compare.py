import dataclasses
import itertools
import math
from pathlib import Path

import pytest

from analysis.comparing.claims import claims
from analysis.comparing.page import main_cells, notes, plus_minus, unlearnt
from analysis.comparing.plan import Choice, ComparisonPlan, Entry
from analysis.comparing.race import entries, final_jobs, run_config, tune_all, tuning_jobs
from analysis.comparing.runs import Figures
from analysis.comparing.table import Row, Table
from analysis.comparing.variants import Variant, value_of, variant
from analysis.stats import Interval
from hwsim import InputError
from sparse_train.registries import TASKS
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task

BASE = TrainConfig(steps=40)
VARIANTS = (Variant("static"), Variant("set"), Variant("srigl"), variant("srigl,gamma=none"))


def plan(**changes) -> ComparisonPlan:
    defaults = {
        "variants": VARIANTS, "densities": (0.2,), "seeds": (0, 1, 2), "narrower": False,
        "rates": (1e-3, 2e-3),
    }  # fmt: skip
    return ComparisonPlan(BASE, **{**defaults, **changes})


def figures(loss: float, flops: float) -> Figures:
    test = {"loss": loss, "accuracy": 1 - loss / 10} if loss == loss else {}
    return Figures(
        test, {"loss": loss}, flops, int(flops), flops,
        seconds={"ideal": (flops, flops / 2, flops * 2)}, verified={"ideal": True},
    )  # fmt: skip


def table(
    losses: dict[str, list[float]], *, lower: bool = True, metric: str = "loss", **facts
) -> Table:
    """Contender → test loss of each seed, made by hand."""
    made = plan(rates=(1e-3, 2e-3, 4e-3), seeds=tuple(range(len(losses["dense"]))))
    rows = []
    for entry in entries(made, None):
        runs = dict(enumerate(figures(x, 100 * entry.density) for x in losses[entry.variant]))
        choice = Choice(2e-3, {1e-3: 3.0, 2e-3: 2.0, 4e-3: 2.5})
        rows.append(Row(entry, choice, runs, {seed: Path(entry.key) for seed in runs}))
    return Table(made, metric, lower, ("ideal",), tuple(rows), {"digest": "abc"}, **facts)


def ten(losses: dict[str, list[float]]) -> dict[str, list[float]]:
    """Ten seeds around the same means."""
    return {
        name: [sum(found) / len(found) + 0.01 * ((7 * s + len(name)) % 5) for s in range(10)]
        for name, found in losses.items()
    }


LOSSES = {
    "dense": [2.0, 2.1, 2.2],
    "static": [3.0, 3.1, 3.2],
    "SET": [2.5, 2.61, 2.7],
    "SRigL": [2.6, 2.4, 2.75],
    "SRigL no ablation": [2.9, 2.95, 3.05],
}


def test_a_variant_is_read_with_its_options_and_settings():
    one = variant("srigl,gamma=none,distribution=uniform,drop_fraction=0.5")
    assert one.options == {"gamma": None}
    assert one.settings == {"distribution": "uniform", "drop_fraction": 0.5}
    assert one.name == "SRigL uniform 0.5 no ablation"
    assert variant("rigl").name == "RigL"
    assert one.key != variant("srigl,gamma=none").key


@pytest.mark.parametrize(
    ("kind", "name", "text", "value"),
    [
        (TrainConfig, "decay", "none", "none"),
        (TrainConfig, "clip_norm", "none", None),
        (TrainConfig, "decay", "linear", "linear"),
        (TrainConfig, "milestones", "[0.25, 0.5]", [0.25, 0.5]),
        (TASKS.get("images"), "augmentation", "none", "none"),
        (TASKS.get("images"), "path", "None", None),
        (TASKS.get("mlm"), "tokens", "16", 16),
    ],
)
def test_none_is_a_name_where_the_setting_takes_names(kind, name, text, value):
    assert value_of(text, name, kind) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("riggle", "riggle"),
        ("set,gamma=1", "option of set.*gamma"),
        ("set,rounding", "allowed is name=value"),
    ],
)
def test_a_variant_that_is_not_one_says_what_is_allowed(text, message):
    with pytest.raises(InputError, match=message):
        variant(text)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"densities": (0.2, 0.2)}, "densities"),
        ({"densities": (1.2,)}, "densities"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (-1,)}, "seeds"),
        ({"rates": (0.0,)}, "rates"),
        ({"tune_steps": 0}, "tune_steps"),
        ({"warmup_share": 1.0}, "warmup_share"),
        ({"variants": (Variant("set"), Variant("set"))}, "variants: SET is given twice"),
        ({"variants": (), "dense": False}, "variants"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes, name):
    with pytest.raises(InputError, match=name):
        plan(**changes)


def test_every_contender_starts_on_the_same_grid_on_a_seed_that_no_final_run_has():
    made = plan()
    all_entries = entries(made, None)
    jobs = tuning_jobs(made, all_entries, Path("out"), "d")
    assert len(jobs) == len(all_entries) * len(made.rates)
    assert {job.config.seed for job in jobs}.isdisjoint(made.seeds)
    assert not any(job.config.test for job in jobs), "the test set is not for choosing"
    assert len({job.folder for job in jobs}) == len(jobs)


def test_final_runs_differ_in_contender_and_seed_alone_and_evaluate_the_test_set():
    made = plan()
    all_entries = entries(made, None)
    choices = {entry.key: Choice(1e-3, {1e-3: None}) for entry in all_entries}
    jobs = final_jobs(made, all_entries, choices, Path("out"), "d", ())
    assert [job.config.seed for job in jobs[:5]] == [0] * 5, "one seed of all before the next"
    assert all(job.config.test and job.config.threads == 1 for job in jobs)
    same = ("steps", "batch_size", "warmup_steps", "eval_interval", "learning_rate", "task")
    for name in same:
        assert len({getattr(job.config, name) for job in jobs}) == 1, name


def test_the_update_interval_is_for_those_that_update_now_and_then():
    made = plan(update_interval=7, variants=(Variant("static"), Variant("set"), Variant("deep_r")))
    kept = {
        e.variant: run_config(made, e, 1e-3, 0, 40).update_interval for e in entries(made, None)
    }
    assert kept == {"dense": None, "static": None, "SET": 7, "DeepR": None}


def tuned_on(curve, made, *, lower=True):
    """Choices and rounds where a rate's metric is curve(rate); None where it diverges."""
    rounds = []

    def tune(number, wanted):
        rounds.append({key: tuple(rates) for key, rates in wanted.items()})
        return {key: {rate: curve(rate) for rate in rates} for key, rates in wanted.items()}

    return tune_all(made, entries(made, None), tune, lower=lower), rounds


@pytest.mark.parametrize("best", [1e-3, 2e-3, 2.5e-4, 1.6e-2])
@pytest.mark.parametrize("lower", [True, False])
def test_a_grid_is_widened_by_two_until_the_best_rate_lies_inside(best, lower):
    def curve(rate):
        off = abs(math.log2(rate / best))
        return off if lower else -off

    choices, rounds = tuned_on(curve, plan(), lower=lower)
    for choice in choices.values():
        assert choice.rate == pytest.approx(best) and not choice.at_an_end
        ratios = [b / a for a, b in itertools.pairwise(sorted(choice.tried))]
        assert ratios == pytest.approx([2.0] * len(ratios))
    assert rounds[0] == {e.key: (1e-3, 2e-3) for e in entries(plan(), None)}


def test_a_grid_that_never_ends_is_given_up_and_a_contender_with_its_best_inside_gets_no_more():
    choices, rounds = tuned_on(lambda rate: rate, plan(most_rates=5))
    assert {len(choice.tried) for choice in choices.values()} == {5}
    assert all(choice.at_an_end for choice in choices.values())
    inside, rounds = tuned_on(lambda rate: abs(rate - 2e-3), plan(rates=(1e-3, 2e-3, 4e-3)))
    assert len(rounds) == 1 and {c.rate for c in inside.values()} == {2e-3}


@pytest.mark.parametrize("lower", [True, False])
def test_a_rate_that_diverged_is_never_chosen_beside_one_that_did_not(lower):
    def curve(rate):
        off = abs(math.log2(rate / 1e-3))
        return None if rate > 1.5e-3 else 9 + (off if lower else -off)

    choices, _ = tuned_on(curve, plan(), lower=lower)
    assert {choice.rate for choice in choices.values()} == {1e-3}


def test_narrower_models_come_in_three_widths_and_two_lengths_each_of_its_own_folder():
    task = make_task("mlm", {"vocabulary_size": 300, "tokens": 16}).prepare()
    made = plan(narrower=True, variants=(Variant("set"),), lengths=(1, 3))
    all_entries = entries(made, task)
    narrow = [e for e in all_entries if e.family == "narrower dense"]
    assert {e.length for e in narrow} == {1, 2}
    assert len({e.settings["model_options"]["width"] for e in narrow}) >= 3
    assert len({e.key for e in all_entries}) == len({e.name for e in all_entries})
    jobs = tuning_jobs(made, all_entries, Path("out"), "d")
    assert {job.config.steps for job in jobs if job.entry.family == "set"} == {40, 120}


def test_a_run_of_twice_the_length_gives_each_task_of_a_stream_twice_the_steps():
    options = {"tasks": 2, "steps_per_task": 20, "scenario": "split"}
    base = TrainConfig(task="continual", task_options=options, steps=40)
    made = dataclasses.replace(plan(variants=(Variant("set"),), lengths=(1, 2)), base=base)
    once, twice = [
        run_config(made, entry, 1e-3, 0, entry.length * base.steps)
        for entry in entries(made, None)
        if entry.family == "set"
    ]
    assert once.task_options == options
    assert twice.task_options == {**options, "steps_per_task": 40}
    assert twice.steps == 80 and base.task_options == options
    of_words = plan(variants=(Variant("set"),), lengths=(2,))
    longer = run_config(of_words, entries(of_words, None)[-1], 1e-3, 0, 80)
    assert longer.task_options == BASE.task_options


def test_a_variant_with_a_density_of_its_own_runs_at_that_alone():
    made = plan(variants=(variant("set,density=0.5"), Variant("set")), dense=False)
    assert [(e.name, e.density) for e in entries(made, None)] == [
        ("SET 50 %", 0.5),
        ("SET 20 %", 0.2),
    ]


def test_differences_are_taken_by_seed_and_signed_so_that_more_is_better():
    found = {(d.one, d.other): d for d in table(LOSSES).differences}
    d = found["static", "dense"]
    assert d.interval.point == pytest.approx(-1.0) and d.verdict == "worse"
    # Each seed's difference is the same: pairing leaves no width, where the means' would be ±0.25.
    assert d.interval.high - d.interval.low == pytest.approx(0, abs=1e-9)
    assert found["SET", "static"].verdict == "better"
    assert found["SRigL", "SET"].verdict == "not told apart"
    assert len(found) == 10


def test_where_more_is_better_the_signs_turn():
    found = {(d.one, d.other): d.verdict for d in table(LOSSES, lower=False).differences}
    assert found["static", "dense"] == "better"


def test_the_papers_claims_are_held_against_the_runs_and_a_failure_is_said():
    worse = ten({**LOSSES, "SET": [3.5, 3.61, 3.7]})
    lines = [claim.line for claim in claims(table(worse))]
    assert any("SET at least as good as static at 20 %" in x and "NOT" in x for x in lines)
    lines = [claim.line for claim in claims(table(ten(LOSSES)))]
    assert any(
        x.startswith("SET at least as good as static") and ": reproduced" in x for x in lines
    )
    ablation = [x for x in lines if "SRigL at least as good as SRigL no ablation" in x]
    assert len(ablation) == 1


def test_no_claim_is_reproduced_with_three_seeds_nor_where_nothing_was_learnt():
    lines = [claim.line for claim in claims(table(LOSSES))]
    assert lines and not any(": reproduced" in x for x in lines)
    assert any("3 of the 10 seeds" in x and "would have shown" in x for x in lines)
    below = table(ten(LOSSES), trivial={"unigram": {"loss": 2.0}})
    assert all("nothing was learnt" in claim.line for claim in claims(below))
    assert any("Nothing was learnt by" in line for line in unlearnt(below))


def test_a_claim_needs_more_where_more_is_claimed():
    found = claims(table(ten(LOSSES)))
    assert all(claim.p >= claim.difference.p for claim in found)
    assert any(claim.p > claim.difference.p for claim in found)


def test_uniform_and_erk_are_held_against_each_other():
    made = plan(variants=(variant("rigl,distribution=uniform"), variant("rigl,distribution=erk")))
    rows = [
        Row(e, Choice(1e-3, {}), {s: figures(x + s / 10, 1.0) for s in range(3)}, {})
        for e, x in zip(entries(made, None), (2.0, 3.0, 2.5), strict=True)
    ]
    (claim,) = claims(Table(made, "loss", True, ("ideal",), tuple(rows), {}))
    assert (claim.one, claim.other) == ("RigL erk", "RigL uniform")
    assert claim.difference.verdict == "better"


def test_a_run_that_diverged_is_counted_and_in_no_mean():
    found = table({**LOSSES, "static": [3.0, float("nan"), 3.2]})
    row = found.row("static 20 %")
    assert row.diverged == 1
    assert found.metrics[row.name].n == 2
    assert "1 diverged" in main_cells(found, row, ("ideal",))[0]
    assert any("diverged" in note for note in notes(found))
    gone = table({**LOSSES, "static": [float("nan")] * 3})
    assert main_cells(gone, gone.row("static 20 %"), ("ideal",))[1] == "diverged"


def test_costs_are_over_the_dense_runs():
    found = table(LOSSES)
    assert main_cells(found, found.row("SET 20 %"), ("ideal",))[2:] == ["0.20", "0.20", "0.20"]


def test_json_has_every_seeds_metrics_and_names_the_data():
    content = table(LOSSES).to_json()
    assert content["data"] == {"digest": "abc"}
    one = next(c for c in content["contenders"] if c["variant"] == "SET")
    assert [run["loss"] for run in one["test_by_seed"].values()] == LOSSES["SET"]
    assert one["test"]["loss"]["mean"] == pytest.approx(sum(LOSSES["SET"]) / 3)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(3.41234, 3.39, 3.43468, 5), "3.412 ± 0.022"),
        (Interval(210.4, 190.0, 230.8, 3), "210 ± 20"),
        (Interval(3.4, float("-inf"), float("inf"), 1), "3.400 (one run)"),
        (Interval(float("nan"), float("nan"), float("nan"), 0), "diverged"),
    ],
)
def test_an_interval_is_said_in_as_many_digits_as_it_has(interval, text):
    assert plus_minus(interval) == text


def test_one_rate_needs_no_tuning():
    choices, rounds = tuned_on(lambda rate: rate, plan(rates=(1e-3,)))
    assert {c.rate for c in choices.values()} == {1e-3} and not rounds


def test_an_entry_says_what_it_changes_and_no_more():
    made = plan()
    entry = next(e for e in entries(made, None) if e.variant == "SRigL no ablation")
    config = run_config(made, entry, 1e-3, 0, 40)
    changed = {
        f.name
        for f in dataclasses.fields(config)
        if getattr(config, f.name) != getattr(BASE, f.name)
    }
    assert changed <= {
        "algorithm", "algorithm_options", "density", "learning_rate", "warmup_steps",
        "eval_interval", "checkpoint_interval", "test", "threads",
    }  # fmt: skip
    assert isinstance(entry, Entry) and config.algorithm_options == {"gamma": None}


def test_the_rate_rule_is_named_in_the_table():
    pushed = variant("rigl,regulariser=l1:1e-5,drop_schedule=linear,replace_step=true")
    assert pushed.name == "RigL l1:1e-5 linear replace_step=True"
    assert pushed.settings["replace_step"] is True
    assert variant("rigl,rate_power=1").name == "RigL lr/d"
    assert variant("rigl,rate_power=0.5").name == "RigL rate_power=0.5"
