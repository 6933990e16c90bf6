"""The table of handcrafted and learnt schedules, from figures made by hand, and as a command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from analysis import results
from analysis.agents.schedules import agent_jobs
from analysis.agents.schedules_page import markdown, notes, plus_minus, verdict
from analysis.agents.schedules_stored import SchedulesPage
from analysis.agents.schedules_study import (
    CURVES,
    LEARNED,
    METHODS,
    Agents,
    Learning,
    ScheduleStudy,
)
from analysis.agents.schedules_table import ScheduleTable, Spread
from analysis.comparing.plan import Choice, Entry
from analysis.comparing.race import entries, run_config
from analysis.comparing.runs import Figures
from analysis.comparing.table import Row
from hwsim import InputError
from rl.agents.learn import train
from rl.worlds import World
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task

WHITE = World(kind="whitebox", slots=4, layers=(2, 3), decisions=4)
BASE = TrainConfig(task="images", steps=40)


def study(**changes) -> ScheduleStudy:
    return ScheduleStudy(BASE, **{"densities": (0.1, 1.0), "seeds": (0, 1), **changes})


def figures(accuracy: float, seconds: float) -> Figures:
    return Figures(
        {"accuracy": accuracy}, {"accuracy": accuracy}, 1.0, 1, 1.0,
        density=0.1, seconds={"wafer": (seconds, seconds, seconds)}, verified={"wafer": True},
    )  # fmt: skip


def row(entry: Entry, accuracies: tuple[float, ...], seconds: float) -> Row:
    runs = {seed: figures(value, seconds) for seed, value in enumerate(accuracies)}
    return Row(entry, Choice(1e-3, {}), runs, {seed: Path(str(seed)) for seed in runs})


def table(
    learned: tuple[float, ...] = (0.95, 0.97), curves=(0.90, 0.92), **changes
) -> ScheduleTable:
    made = study(**changes)
    task = make_task("images", {}).prepare()
    rows = [
        row(entry, (0.93, 0.95), 2.0) if entry.family == "dense" else row(entry, curves, 1.0)
        for entry in entries(made.plan, task)
    ]
    rows += [row(entry, learned, 1.5) for entry in made.learned_entries()]
    return ScheduleTable(made, "accuracy", ("wafer",), tuple(rows), Agents({}, 64, 3.0), {})


def test_at_full_density_every_curve_is_the_dense_run():
    found = table()
    for method in METHODS:
        assert all(found.row(method, curve, 1.0) is found.dense for curve in CURVES)
        assert found.row(method, LEARNED, 1.0) is not found.dense
        assert found.row(method, "cubic", 0.1).entry.density == 0.1


def test_means_and_deviations_are_over_seeds_and_times_over_dense_of_the_same_seed():
    found = table()
    cell = found.accuracy(found.row("RP-RR", LEARNED, 0.1))
    assert cell.mean == pytest.approx(0.96)
    assert cell.deviation == pytest.approx(0.02 / math.sqrt(2))
    assert found.net_time(found.row("RP-RR", "linear", 0.1), "wafer") == Spread(0.5, 0.0, 2)


def test_learned_is_better_only_with_seeds_enough_and_after_correction():
    assert {duel.verdict for duel in table().duels} == {"too few seeds to say anything"}
    rng = [0.001 * (i % 3) for i in range(10)]
    found = table(learned=tuple(0.96 + x for x in rng), curves=tuple(0.90 + x / 2 for x in rng))
    verdicts = {(d.method, d.density): d.verdict for d in found.duels}
    assert verdicts["RP-RR", 0.1] == verdicts["MP-RR", 0.1] == "better"
    assert all(d.curve in CURVES and d.interval.point > 0 for d in found.duels if d.density < 1)
    assert "learned against linear" in verdict(found)[0]


def test_the_best_of_a_column_is_bold_and_agents_are_told_of():
    page = markdown(table(), "Title", "nettime agent schedules")
    assert "| learned | **96.0 ± 1.4** |" in page
    assert any("64 episodes" in note for note in notes(table()))


def test_a_cell_says_so_where_all_runs_diverged_or_there_is_one():
    assert plus_minus(Spread.of([]), 1) == "diverged"
    assert plus_minus(Spread.of([95.04]), 1) == "95.0"


def test_an_agent_learns_at_its_own_target_on_seeds_that_no_run_has():
    jobs = agent_jobs(study(learning=Learning(episodes=33, slots=32)), Path("out"))
    assert set(jobs) == {(a, d) for a in METHODS.values() for d in (0.1, 1.0)}
    job = jobs["random_random", 0.1]
    assert job.world.max_density == 0.1
    assert (job.world.drop, job.world.grow) == ("random", "random")
    assert job.settings["iterations"] == 2
    assert not set(range(*job.world.seeds)) & set(study().seeds)


def test_an_agent_that_names_densities_starts_between_dense_and_its_target():
    learning = Learning(episodes=32, mode="density", hold=0.25)
    made = study(learning=learning)
    jobs = agent_jobs(made, Path("out"))
    job = jobs["random_random", 0.1]
    assert (job.world.mode, job.world.hold) == ("density", 0.25)
    assert job.settings["start"] == pytest.approx(0.1**0.5)
    assert jobs["random_random", 1.0].settings["start"] == 1
    assert any("each layer's density named" in n for n in notes(table(learning=learning)))


def test_runs_of_curves_and_of_agents_have_the_same_settings_but_for_the_schedule():
    made = study()
    task = make_task("images", {}).prepare()
    curve = next(e for e in entries(made.plan, task) if e.name == "RP-RR cubic 10 %")
    learned = made.learned_entries()[0]
    one, other = (run_config(made.plan, e, 1e-3, 0, 40) for e in (curve, learned))
    assert one.first_difference(other) == "schedule"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"densities": ()}, "one or more"),
        ({"densities": (0.5, 0.5)}, "all different"),
        ({"densities": (0.01,)}, "above 0.03125"),
        ({"densities": (1.2,)}, "at most 1"),
        ({"devices": ()}, "devices"),
    ],
)
def test_bad_studies_are_errors(changes, message):
    with pytest.raises(InputError, match=message):
        study(**changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seeds", "0"), "--seeds"),
        (("--density", "2"), "densities"),
        (("--agent-episodes", "0"), "episodes"),
        (("--agent", "nowhere.pt"), "nowhere.pt: there is no such file"),
        (("--device", "abacus"), "abacus"),
        (("--task-option", "data=cats"), "cats"),
    ],
)
def test_bad_input_is_one_line_before_any_work(nettime, tmp_path, options, message):
    found = nettime("agent", "schedules", "--out", tmp_path / "runs", *options)
    assert message in found.error
    assert not (tmp_path / "runs").exists()


def test_piecewise_goes_through_the_root_of_the_target_and_ends_at_it():
    from analysis.agents.schedules_study import through
    from sparse_train.schedules import schedule

    curve = schedule(through(0.25), 1.0, 0.25)
    assert [curve(p) for p in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.25, 0.25]


def test_agents_learn_on_small_networks_of_the_tables_kind_and_task():
    def networks(**base):
        return ScheduleStudy(TrainConfig(steps=40, **base)).networks

    assert networks(task="images") == ("mlp-1x16", "mlp-2x16")
    assert networks(task="images", model="simple_cnn", preset="small")[0].startswith("simple_cnn")
    assert networks(task="text_classification")[0].startswith("text_classifier")


@pytest.mark.slow
def test_the_papers_table_is_one_command_with_small_cnns(nettime, tmp_path):
    page = tmp_path / "page.md"
    command = ("agent", "schedules", "--paper", "--quick", "--out", tmp_path, "--write", page)
    found = nettime(*command, "--json").json
    assert found["model"] == "simple_cnn" and len(found["cells"]) == 14
    assert {d["verdict"] for d in found["learned_against_best_curve"]} == {
        "too few seeds to say anything"
    }
    assert "Learned schedules against the best curve of each of 2 cells" in page.read_text()


@pytest.mark.slow
def test_the_smaller_table_with_a_residual_network_is_one_command(nettime, tmp_path):
    narrow = '--set=model_options={"width_factor": 0.05}'
    agent = train(tmp_path / "agent", WHITE, "ppo", {"iterations": 1, "steps": 6, "epochs": 1})
    assert agent.curve
    command = ("agent", "schedules", "--resnet", "--quick", narrow, "--density", "0.5")
    given = ("--agent", tmp_path / "agent" / "agent.pt", "--seeds", "1", "--processes", "1")
    ran = nettime(*command, *given, "--out", tmp_path / "runs", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["model"] == "resnet" and found["data"]["augmentation"] == "crop_flip"
    assert len(found["cells"]) == 14

    config = json.loads((tmp_path / "runs/final/dense/seed-0/config.json").read_text())["config"]
    assert config["weight_decay"] == 5e-4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--paper", "--resnet"), "--paper: given with --resnet; allowed is one of them"),
        (("--set", "steps=3"), "--set: steps has an option of its own, --steps"),
        (("--set", "seed=3"), "--set: seed is decided by the comparison"),
        (("--set", "weight_decay=-1"), "weight_decay"),
        (("--task-option", "validation=0"), "validation: value is 0; allowed is an integer"),
        (("--task-option", "validation=5000"), "validation: value is 5000; allowed is at most"),
        (("--evaluations", "0"), "--evaluations"),
    ],
)
def test_bad_settings_are_one_line(given, message, nettime, tmp_path):
    found = nettime("agent", "schedules", "--quick", "--out", tmp_path / "runs", *given)
    assert found.code == 2 and found.err.count("\n") == 1
    assert message in found.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_table_is_made_written_and_gone_on_with(nettime, tmp_path):
    out, page = tmp_path / "runs", tmp_path / "page.md"
    command = (
        "agent", "schedules", "--out", out, "--seeds", "2", "--steps", "20", "--density", "0.5",
        "--agent-episodes", "4", "--slots", "4", "--network", "mlp-1x8", "--rate", "0.004",
    )  # fmt: skip
    first = nettime(*command, "--write", page)
    assert "RP-RR 50 %" in first.out
    assert page.with_suffix(".svg").is_file()
    assert all(schedule in page.read_text() for schedule in (*CURVES, LEARNED))
    again = nettime(*command, "--json").json
    assert len(again["cells"]) == 14
    assert {cell["final_density"]["mean"] <= 0.5 for cell in again["cells"]} == {True}


def test_no_number_is_cut_on_a_terminal_of_80_columns():
    import io

    from rich.console import Console

    from analysis.agents.schedules_page import show

    made = study(densities=(0.1, 0.5, 1.0))
    task = make_task("images", {}).prepare()
    rows = [row(e, (0.93, 0.95), 2.0) for e in entries(made.plan, task)]
    rows += [row(e, (0.71, 0.97), 1.5) for e in made.learned_entries()]
    text = io.StringIO()
    show(
        Console(file=text, width=80),
        ScheduleTable(made, "accuracy", ("wafer",), tuple(rows), Agents({}), {}),
    )
    assert text.getvalue().count("84.0 ± 18.4") == 6
    assert all(f"{method} 100 %" in text.getvalue() for method in METHODS)


def test_the_page_comes_again_from_its_stored_table(tmp_path):
    stored = SchedulesPage(table(), "Title", "nettime agent schedules", ("page.svg",))
    page = tmp_path / "page.md"
    page.write_text(stored.page)
    results.beside(page).write_text(results.dumps(stored))
    assert results.disagreements(tmp_path) == ([], [])
    again = results.load(results.beside(page))
    assert again.page == stored.page and results.dumps(again) == results.dumps(stored)
    page.write_text(stored.page.replace("Title", "Another"))
    assert len(results.disagreements(tmp_path)[0]) == 1
