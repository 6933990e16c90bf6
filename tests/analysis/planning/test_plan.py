"""Plans: what is best within a net time, and what the command says of it."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import results
from analysis.planning.law import VIT_JFT, Law
from analysis.planning.plan import Candidate, Front, best, candidates
from analysis.planning.prices import (
    CONSTANT,
    GRADUAL,
    Size,
    StepCosts,
    average_density,
    densities_over,
)
from analysis.planning.sizes import vits
from hwsim import InputError, load_device

LAW = Law("frantar", {"a": 1.3, "b": 0.8, "c": 2.0, "d": 0.4, "e": 0.3, "f": 0.8, "g": 4.5},
          error=0.005)  # fmt: skip


def size(name, weights):
    return Size(name, weights, 256.0)


def costing(cost, *, densities=(1.0, 0.25), weights=(4e6, 16e6)):
    """Candidates of two sizes; cost(weights, density) → seconds of a step."""
    return [
        Candidate(size(f"w{n:g}", n), d, "made up", cost(n, d), CONSTANT)
        for n in weights for d in densities
    ]  # fmt: skip


@given(st.sampled_from([GRADUAL, CONSTANT]), st.floats(0.01, 1))
def test_a_schedule_spends_all_steps_and_ends_at_its_density(schedule, density):
    values, shares = densities_over(schedule, density)
    assert shares.sum() == pytest.approx(1) and values[-1] == density
    assert density <= average_density(schedule, density) <= 1


def test_gradual_pruning_costs_what_its_average_density_costs():
    # Dense for a quarter, ∫ of the cubic a quarter of the way between for a half, then sparse.
    assert average_density(GRADUAL, 0.2) == pytest.approx(0.25 + 0.5 * 0.4 + 0.25 * 0.2, abs=1e-3)


def test_where_sparsity_is_free_of_charge_sparse_wins_and_where_it_costs_as_much_dense_does():
    cheap = best(LAW, costing(lambda n, d: n * d * 1e-9), budget_s=3e4)
    assert cheap.winner.density < 1 and cheap.forecast.speed_up.point > 1
    dear = best(LAW, costing(lambda n, d: n * 1e-9), budget_s=3e4)
    assert dear.winner.density == 1 and dear.sentence.endswith("Dense wins.")


def test_time_to_a_loss_is_the_inverse_of_the_loss_after_a_time():
    for one in costing(lambda n, d: n * d * 1e-9):
        loss = LAW.loss(one.point(5e4))
        assert one.seconds_to(LAW, loss) == pytest.approx(5e4, rel=1e-6)
    found = best(LAW, costing(lambda n, d: n * d * 1e-9), loss=6.0)
    times = [found.seconds[c.name] for c in found.candidates]
    assert times == sorted(times)


def test_a_law_that_is_less_sure_answers_less_surely():
    made = costing(lambda n, d: n * d * 1e-9)
    narrow, wide = (
        best(dataclasses.replace(LAW, error=e), made, budget_s=3e4).forecast.speed_up
        for e in (0.001, 0.02)
    )
    assert wide.low <= narrow.low <= narrow.point <= narrow.high <= wide.high


def test_the_front_is_the_lowest_of_all_curves_and_larger_nets_come_later():
    front = Front(LAW, tuple(costing(lambda n, d: n * d * 1e-9)), 3e4)
    starts = [s for s, _ in front.pareto]
    assert starts == sorted(starts) and starts[0] == front.seconds[0]
    names = [name for _, name in front.pareto]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("asked", [{}, {"budget_s": 1.0, "loss": 3.0}, {"budget_s": -1.0}])
def test_a_budget_that_is_none_is_refused(asked):
    with pytest.raises(InputError):
        best(LAW, costing(lambda n, d: 1.0), **asked)


def test_a_loss_below_the_laws_floor_is_refused():
    with pytest.raises(InputError, match="no candidate"):
        best(LAW, costing(lambda n, d: 1.0), loss=4.4)


def test_steps_of_a_vision_transformer_cost_less_the_sparser_they_are_on_ideal():
    (one,) = vits((64,), 8)
    assert one.size.weights == 12 * 12 * 64**2
    costs = StepCosts(one.subject, load_device("ideal"), (0.5, 0.1))
    assert costs.at(0.1) < costs.at(0.3) < costs.at(0.5) < costs.at(1.0)
    assert costs.training(GRADUAL, 0.1) > costs.training(CONSTANT, 0.1)
    made = candidates([one], load_device("ideal"), (0.5, 0.1))
    assert [c.density for c in made] == [1.0, 0.5, 0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--hours, --loss"),
        (("--hours", "1", "--loss", "2"), "--hours, --loss"),
        (("--hours", "1", "--width", "100"), "width"),
        (("--hours", "1", "--law", "moore"), "--law"),
        (("--hours", "1", "--schedule", "never"), "--schedule"),
        (("--hours", "-1"), "--hours: value is -1.0; allowed is above 0"),
        (("--hours", "inf"), "--hours: value is inf"),
        (("--hours", "1", "--runs", "nowhere"), "no complete run"),
        (("--hours", "1", "--density", "0"), "--density"),
    ],
)
def test_bad_input_of_the_command_is_one_line(nettime, options, message):
    assert message in nettime("plan", *options).error


def test_the_command_writes_a_page_a_figure_and_json(nettime, tmp_path):
    page, plot = tmp_path / "plan.md", tmp_path / "plan.svg"
    made = nettime(
        "plan", "--hours", "100", "-d", "ideal", "-d", "wafer", "--width", "64", "--width", "128",
        "--density", "0.25", "--batch-size", "8", "--write", page, "--plot", plot, "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert [d["device"] for d in made.json["devices"]] == ["ideal", "wafer"]
    assert made.json["law"]["coefficients"]["g"] == VIT_JFT.coefficients["g"]
    assert "<svg" in plot.read_text() and "Written by this command" in page.read_text()
    assert results.disagreements(tmp_path) == ([], [])
    table = results.beside(page)
    told = json.loads(table.read_text())
    told["candidates"][0][0]["step_s"] *= 1.5
    table.write_text(json.dumps(told))
    assert "plan.md: line" in results.disagreements(tmp_path)[0][0]
    for device in made.json["devices"]:
        losses = [c["loss"] for c in device["candidates"]]
        assert losses == sorted(losses)
