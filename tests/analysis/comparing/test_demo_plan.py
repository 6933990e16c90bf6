import math
from pathlib import Path

import pytest
from hand_made import contender

from analysis import demo

ENTRIES = demo.entries(demo.Budget())


def test_every_contender_has_the_same_number_of_tuning_runs_and_steps():
    jobs = demo.tuning_jobs(demo.Budget(), ENTRIES, Path("runs"))
    names = [entry.name for entry in ENTRIES]
    for name in names:
        own = [job for job in jobs if job.entry.name == name]
        assert sorted(job.rate for job in own) == sorted(demo.RATES)
        assert {job.steps for job in own} == {demo.STEPS}


def test_the_contenders_are_dense_narrower_dense_and_each_algorithm_at_each_density():
    families = [entry.family for entry in ENTRIES]
    assert families.count("dense") == 1
    for family in ("narrower dense", "static", "set", "rigl"):
        assert families.count(family) == len(demo.DENSITIES)


def test_two_jobs_share_a_folder_only_if_they_are_the_same_run():
    budget = demo.Budget()
    choices = {e.name: demo.Choice(1e-3, {1e-3: 1.0}) for e in ENTRIES}
    tuning = demo.tuning_jobs(budget, ENTRIES, Path("r"))
    final = demo.final_jobs(budget, ENTRIES, choices, Path("r"))
    assert len({job.folder for job in tuning}) == len(tuning)
    assert len({job.folder for job in tuning + final}) == len(set(tuning + final))
    assert [job for job in final if job not in tuning] == [
        job for job in final if job.steps > demo.STEPS
    ]


def test_the_narrower_model_gets_several_lengths_and_the_others_one():
    budget = demo.Budget()
    choices = {e.name: demo.Choice(1e-3, {1e-3: 1.0}) for e in ENTRIES}
    for job in demo.final_jobs(budget, ENTRIES, choices, Path("r")):
        assert job.steps in ([demo.STEPS, 2 * demo.STEPS] if job.entry.narrow else [demo.STEPS])


def jobs_of(name, rates):
    entry = demo.Entry(name, "dense", "dense", 1.0)
    return [demo.Job(entry, rate, 10, 1, Path(f"{name}/{rate}")) for rate in rates]


@pytest.mark.parametrize(
    ("losses", "rate"),
    [((3.0, 2.0, 2.5), 2e-3), ((2.0, 2.0, 2.0), 1e-3), ((2.5, math.nan, 2.6), 1e-3)],
)
def test_the_lowest_validation_loss_chooses_and_a_diverged_run_never(losses, rate):
    choice = demo.choose(jobs_of("a", (1e-3, 2e-3, 4e-3)), losses)["a"]
    assert choice.rate == rate
    assert choice.at_an_end == (rate != 2e-3)


def test_of_several_lengths_the_one_that_is_first_at_the_common_loss_is_kept():
    narrow = demo.Entry("narrower", "narrower dense", "dense", 0.2, True, (1, 2))
    dense = demo.Entry("dense", "dense", "dense", 1.0)
    slow = contender("narrower", "narrower dense", 3e-4, end=1.7)
    fast = contender("narrower", "narrower dense", 2e-4, end=1.8)
    kept = demo.keep_best(
        [(dense, contender("dense", "dense", 1e-3, end=1.9)), (narrow, slow), (narrow, fast)],
        "ideal",
    )
    assert kept[0].name == "dense"
    assert kept[1] is fast


def test_a_short_run_that_never_reaches_the_common_loss_is_not_kept():
    narrow = demo.Entry("narrower", "narrower dense", "dense", 0.2, True, (1, 2))
    dense = demo.Entry("dense", "dense", "dense", 1.0)
    short = contender("narrower", "narrower dense", 1e-4, end=2.5)
    long = contender("narrower", "narrower dense", 3e-4, end=1.8)
    runs = [(dense, contender("dense", "dense", 1e-3, end=1.6)), (narrow, short), (narrow, long)]
    assert demo.keep_best(runs, "ideal")[1] is long


def test_the_notes_say_one_seed_and_how_rates_were_chosen():
    choices = {"a": demo.Choice(2e-3, {1e-3: 2.0, 2e-3: 1.0, 4e-3: 3.0})}
    text = " ".join(demo.notes(demo.Budget(), choices))
    assert "anecdote" in " ".join(demo.main_study())
    assert f"a run of {demo.STEPS} steps at each of 0.001, 0.0025, 0.006" in text
    assert "may lie beyond" not in text
    choices["b"] = demo.Choice(4e-3, {1e-3: 3.0, 2e-3: 2.0, 4e-3: 1.0})
    assert "may lie beyond: b" in " ".join(demo.notes(demo.Budget(), choices))
