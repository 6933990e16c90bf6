"""The narrower dense model costs what the sparse step costs, for every family, in four looks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import InputError, Workload, gemm
from rl.runs.problems import Problem, first_batch
from rl.runs.problems import narrower as narrower_network
from sparse_train import models
from sparse_train.masking.layers import select_layers
from sparse_train.narrower import (
    OBSERVATIONS,
    narrower,
    narrower_at,
    nearest_width,
    sparse_flops,
)
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task
from sparse_train.workload import workload

SMALLEST = {family: models.FAMILIES.get(family).presets[0] for family in models.FAMILIES.names()}


def within_one_width(flops, width, widths, target):
    """Whether no neighbour is nearer by more than what one width is worth."""
    off = abs(flops(width) - target)
    beside = [w for w in (width - 1, width + 1) if 1 <= w <= widths]
    return off <= max(abs(flops(w) - flops(width)) for w in beside) + 1e-6


@given(
    a=st.floats(0.0, 50.0), b=st.floats(0.1, 5000.0), c=st.floats(0.0, 1e6),
    widths=st.integers(2, 1024), share=st.floats(0.0, 1.0),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_polynomials_are_met_to_half_a_width_in_four_looks(a, b, c, widths, share):
    looks = []

    def flops(width):
        looks.append(width)
        return a * width * width + b * width + c

    target = flops(1) + share * (flops(widths) - flops(1))
    looks.clear()
    found = nearest_width(flops, widths, target)
    assert len(looks) == len(set(looks)) <= OBSERVATIONS
    best = min(range(1, widths + 1), key=lambda w: abs(a * w * w + b * w + c - target))
    assert abs(found - best) <= 1


@pytest.mark.parametrize("family", sorted(SMALLEST))
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_every_family_is_met_within_one_width(family, share):
    name = f"{family.replace('_', '-')}-{SMALLEST[family]}"
    widths = models.widths(name)

    def flops(width):
        return workload(*models.build(name, 2, 16, width / widths)).dense_flops

    full = flops(widths)
    assert full == workload(*models.build(name, 2, 16)).dense_flops
    target = share * full
    assert within_one_width(flops, nearest_width(flops, widths, target, full), widths, target)


@pytest.mark.parametrize(
    ("task", "options", "model", "preset"),
    [
        ("images", {"data": "digits"}, "mlp", "small"),
        ("images", {"data": "digits"}, "simple_cnn", "small"),
        ("recommendation", {"ratings": "generated"}, "factorization", "small"),
        ("control", {}, "q_network", "small"),
        ("extreme", {"data": "planted", "outputs": 200, "inputs": 300, "examples": 500}, "extreme",
         "small"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("density", [0.1, 0.5])
def test_a_run_of_a_task_gets_options_of_the_sparse_step_s_flops(
    task, options, model, preset, density
):
    config = TrainConfig(task=task, task_options=options, model=model, preset=preset, batch_size=8)
    prepared = make_task(task, options).prepare()
    own = (config.model, config.preset, dict(config.model_options))
    widths = prepared.widths(*own)

    def step(options):
        built = prepared.build_model(model, preset, options)
        return built, workload(prepared.priced_model(built), prepared.batch(1, 8, 0))

    dense, at = step({})
    masked = {one.name for one in select_layers(dense, config.layers, None).layers}
    target = sparse_flops(at, masked, density)
    assert target < at.dense_flops
    found = step(narrower(config, prepared, density))[1].dense_flops
    nearest = min(
        abs(step(prepared.narrowed(*own, w / widths))[1].dense_flops - target)
        for w in range(1, widths + 1, max(1, widths // 64))
    )
    one = abs(step(prepared.narrowed(*own, 1 - 1 / widths))[1].dense_flops - at.dense_flops)
    assert abs(found - target) <= nearest + one


@pytest.mark.parametrize("network", ["mlp-1x16", "mlp-3x32"])
@pytest.mark.parametrize("density", [0.1, 0.25, 0.5, 1.0])
def test_an_agent_s_narrower_opponent_costs_what_the_sparse_step_costs(network, density):
    problem = Problem(network, "images")
    family, layers, width = problem.parts

    def flops(w):
        one = Problem(f"{family}-{layers}x{w}", "images")
        return workload(one.data.priced_model(one.build()), first_batch(one)).dense_flops

    step = workload(problem.data.priced_model(problem.build()), first_batch(problem))
    masked = {one.name for one in select_layers(problem.build(), problem.layers, None).layers}
    found = Problem(narrower_network(network, "images", density), "images").parts
    assert found[:2] == (family, layers)
    target = sparse_flops(step, masked, density)
    assert within_one_width(flops, found[2], width, target)
    assert (found[2] == width) == (density == 1.0)


def test_a_model_without_widths_says_so():
    class Widthless:
        def widths(self, *_):
            return 0

    with pytest.raises(InputError, match=r"to take; leave the narrower dense model out$"):
        narrower_at(TrainConfig(), Widthless(), 1.0)
    with pytest.raises(InputError, match="widths: value is 0"):
        nearest_width(lambda w: w, 0, 1.0)


@pytest.mark.parametrize(
    ("flops", "widths", "target", "looks", "best"),
    [
        # Its own width, the root of the quotient, the polynomial of two points, of three.
        (lambda w: 6 * w * w + 10 * w + 5000, 64, 7600, [64, 32, 23, 20], 20),
        # Met at once: its neighbour on the side of the target, here below, is the last look.
        (lambda w: w * w, 64, 400, [64, 20, 19], 20),
        (lambda w: 6 * w * w + 10 * w, 64, 2600, [64, 21, 20, 19], 20),
        (lambda w: w * w, 64, 4, [64, 2, 1], 2),
        # 8.4² is nearer to 8² than to 9².
        (lambda w: w * w, 64, 70.56, [64, 8, 9], 8),
        # Linear costs; of two as near the narrower one.
        (lambda w: w, 20, 11.5, [20, 15, 12, 11], 11),
        # Fractions of one FLOP.
        (lambda w: (w / 64) ** 2, 64, 0.04, [64, 13, 12], 13),
        # Beyond either end.
        (lambda w: w * w, 64, 5000, [64], 64),
        (lambda w: w * w, 64, -7, [64, 1], 1),
        (lambda w: w * w, 1, 0.2, [1], 1),
        # Never as cheap as that: the cheapest.
        (lambda w: (w - 10.2) ** 2 + 100, 32, 50, [32, 9, 5, 10], 10),
    ],
)  # fmt: skip
def test_the_widths_that_are_looked_at(flops, widths, target, looks, best):
    seen = []

    def observed(width):
        seen.append(width)
        return flops(width)

    assert nearest_width(observed, widths, target) == best
    assert seen == looks
    seen.clear()
    assert nearest_width(observed, widths, target, flops(widths)) == best
    assert seen == looks[1:]


def test_blocks_of_a_masked_parameter_cost_their_density():
    def op(name, m):
        return gemm(m, 8, 8, name=name)

    step = Workload((op("a[0:8]", 1), op("a[8:16]", 2), op("b", 4), op("ab", 8)), "made up")
    one = gemm(1, 8, 8).dense_flops
    assert sparse_flops(step, {"a", "c"}, 0.25) == one * (0.25 * 3 + 12)
    assert sparse_flops(step, set(), 0.25) == step.dense_flops == 15 * one


def test_a_run_s_narrower_model_is_found_in_four_steps_and_half_of_it_costs_half():
    config = TrainConfig(
        task="images", task_options={"data": "digits"}, model="mlp", preset="small",
        optimizer="sgd", batch_size=2,
    )  # fmt: skip
    prepared = make_task(config.task, config.task_options).prepare()

    class Counted:
        built = 0

        def __getattr__(self, name):
            return getattr(prepared, name)

        def build_model(self, *given):
            self.built += 1
            return prepared.build_model(*given)

    def flops(options):
        model = prepared.build_model("mlp", "small", options)
        return workload(
            prepared.priced_model(model), prepared.batch(1, 2, 0), optimizer="sgd_momentum"
        ).dense_flops

    task = Counted()
    whole = flops(narrower(config, task, 0.5))
    assert task.built <= OBSERVATIONS
    assert flops(narrower(config, prepared, 0.5, 0.5)) == pytest.approx(whole / 2, rel=0.05)
    assert narrower(config, prepared, 1.0) == {}
    # With the run's own optimizer: AdamW's FLOPs would leave room for fewer neurons.
    half = prepared.narrowed("mlp", "small", {}, 0.5)
    assert narrower_at(config, prepared, flops(half)) == half
