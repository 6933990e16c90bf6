"""What a page says of the task's other metrics, and of the metric over the whole run."""

import dataclasses

import pytest
from test_compare import LOSSES, table, ten

from analysis.comparing.out import markdown
from analysis.comparing.table import Table

STEPS = (10, 20, 30, 40, 50)


def with_courses(made: Table, longer: str = "") -> Table:
    """Losses that fall by 0.1 from one validation to the next, up to that on the test set."""
    rows = []
    for row in made.rows:
        runs = {}
        for seed, run in row.runs.items():
            scale = 2 if row.name == longer else 1
            course = tuple(run.test["loss"] + 0.1 * left for left in (4, 3, 2, 1, 0))
            runs[seed] = dataclasses.replace(
                run, steps=tuple(scale * s for s in STEPS), courses={"loss": course},
                times={"ideal": tuple(map(float, STEPS))},
            )  # fmt: skip
        rows.append(dataclasses.replace(row, runs=runs))
    return dataclasses.replace(made, rows=tuple(rows))


def test_the_area_is_the_mean_over_validations_and_compared_by_seed():
    made = with_courses(table(ten(LOSSES)))
    dense, static = made.dense, made.rows[-1]
    areas = made.areas(dense)
    assert areas[0] == pytest.approx(dense.runs[0].test["loss"] + 0.2)
    interval, p = made.area_differences[static.name]
    by_hand = sum(areas.values()) / 10 - sum(made.areas(static).values()) / 10
    # Losses: the contender is better where its area is smaller.
    assert interval.point == pytest.approx(by_hand) and by_hand < 0
    assert p < 0.05
    page = markdown(made, "t", "c")
    line = next(part for part in page.splitlines() if part.startswith(f"| {static.name} |")
                and "✗" in part)  # fmt: skip
    assert line.endswith("✗ |")
    assert "| test accuracy | loss over the run |" in page


def test_a_run_of_another_length_has_no_area_to_compare():
    plain = table(ten(LOSSES))
    made = with_courses(plain, longer=plain.rows[-1].name)
    assert made.rows[-1].name not in made.area_differences
    assert made.rows[-2].name in made.area_differences


def test_with_few_validations_only_the_other_metrics_are_told():
    page = markdown(table(ten(LOSSES)), "t", "c")
    assert "test accuracy" in page and "over the run" not in page


def test_where_more_is_better_a_larger_area_is_better():
    made = with_courses(table(ten(LOSSES), lower=False, metric="accuracy"))
    rows = []
    for row in made.rows:
        courses = {s: {"accuracy": run.courses["loss"]} for s, run in row.runs.items()}
        runs = {s: dataclasses.replace(run, courses=courses[s]) for s, run in row.runs.items()}
        rows.append(dataclasses.replace(row, runs=runs))
    made = dataclasses.replace(made, rows=tuple(rows))
    assert made.area_differences[made.rows[-1].name][0].point > 0
