"""The demo is a comparison by the protocol, and says what the main study found."""

import io

from hand_made import contender
from rich.console import Console

from analysis import demo
from analysis.comparing.page import short_rows, show_short
from analysis.comparing.race import entries, tuning_steps
from analysis.reporting.contenders import verdicts
from analysis.reporting.report import verdict_lines
from analysis.reporting.summary import target_losses
from analysis.results import load
from sparse_train.tasks import make_task


def test_the_demo_has_one_seed_three_widths_of_two_lengths_and_widens_its_rates():
    plan = demo.plan()
    made = entries(plan, make_task(plan.base.task, plan.base.task_options).prepare())
    assert plan.seeds == (0,) and plan.tuned and plan.most_rates > len(plan.rates)
    narrow = [one for one in made if one.family == "narrower dense"]
    assert len(narrow) == 6 and {one.length for one in narrow} == {1, 2}
    assert {one.family for one in made} == {"dense", "narrower dense", "static", "set", "rigl"}
    assert all(tuning_steps(plan, one) == one.length * plan.base.steps for one in made)


def test_the_quick_demo_has_every_part_and_few_steps():
    plan = demo.plan(quick=True)
    assert plan.base.steps < 100 and plan.narrower and plan.dense and len(plan.variants) == 2


def test_the_main_study_is_quoted_from_its_table_and_the_demo_called_an_anecdote():
    lines = demo.main_study()
    assert "anecdote" in lines[0]
    table = load(demo.Path("docs/results") / demo.MAIN_STUDY).table
    assert [c.line for c in table.conclusions] == lines[1:-1]


def test_the_screen_has_a_line_a_contender_and_fits_80_columns():
    table = load(demo.Path("docs/results") / demo.MAIN_STUDY).table
    console = Console(file=io.StringIO(), width=80)
    show_short(console, table)
    text = console.file.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    rows = short_rows(table)
    assert rows[0][0] == "dense" and rows[0][-1] == "1.00"
    assert all(row[0] in text for row in rows)


def test_a_report_words_its_verdict_at_one_loss():
    runs = [contender("dense", "dense", 1e-3, end=1.6), contender("RigL", "rigl", 1e-4, end=1.7)]
    losses = [loss for loss, _ in target_losses(runs)]
    assert len(losses) == 2 and verdict_lines(runs) == verdicts(runs, losses[-1])
