"""A stream of tasks, sub-networks that share no weight, and what is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwsim import InputError, load_device
from sparse_train.algorithms import View
from sparse_train.algorithms.rigl import RigL
from sparse_train.algorithms.set import Set
from sparse_train.distributions import uniform
from sparse_train.models.multi_head import MultiHeadConfig
from sparse_train.patterns import projection
from sparse_train.runs.config import TrainConfig
from sparse_train.runs.run import Run
from sparse_train.schedules import constant
from sparse_train.tasks import make_task
from sparse_train.tasks._subnetworks import CyclicPlan, isolated
from sparse_train.trainer import train

pytest.importorskip("sklearn", reason="it holds the digits: pip install 'nettime[tasks]'")
OPTIONS = {"tasks": 3, "steps_per_task": 20}


def config(**changes):
    settings = {
        "task": "continual", "task_options": OPTIONS, "model_options": {"width": 32},
        "algorithm": "rigl", "density": 0.6, "update_interval": 4, "steps": 60, "batch_size": 16,
        "warmup_steps": 2, "eval_interval": 20, "threads": 1, "learning_rate": 0.01,
        "decay": "none",
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


def go(task, steps, **changes):
    run = Run(config(**changes), task)
    seen = []
    for _ in range(steps):
        run.before_step()
        if run.sparsifier is not None:
            seen.append({n: m.array for n, m in run.sparsifier.masks().items()})
        run.advance()
    return run, seen


@pytest.fixture(scope="module")
def task():
    return make_task("continual", OPTIONS).prepare()


@pytest.mark.parametrize("algorithm", ["static", "set", "rigl", "srigl"])
@pytest.mark.parametrize("distribution", ["uniform", "erk"])
def test_subnetworks_share_no_weight_and_together_have_the_density(task, algorithm, distribution):
    run, _ = go(task, 60, algorithm=algorithm, distribution=distribution)
    last = run.sparsifier.masks()
    taken = 0
    for name, mask in last.items():
        assert not (task._taken[name] & mask.array).any()
        taken += int(task._taken[name].sum()) + mask.nnz
    size = sum(mask.size for mask in last.values())
    assert taken <= round(0.6 * size) + 3
    if algorithm != "srigl":  # whose rows are of one length, so that a budget is not met exactly
        assert taken >= round(0.6 * size) - 3


def test_what_a_task_learnt_stays_to_the_bit(task):
    run, _ = go(task, 20)
    before = task.evaluate(run.model)
    for _ in range(40):
        run.before_step()
        run.advance()
    first = task._snapshots[0]
    loss, accuracy = task._measured(run.model, first, 0, "validation")
    assert (loss, accuracy) == (before["loss"], before["accuracy"])
    assert task.evaluate(run.model)["forgetting"] == 0


def test_shared_weights_forget_and_the_figure_is_that_of_the_definition():
    task = make_task("continual", {**OPTIONS, "subnetworks": "shared"}).prepare()
    run = Run(config(algorithm="set"), task)
    accuracies = []
    for _ in range(60):
        run.before_step()
        run.advance()
        if run.step % 20 == 0:
            now = {n: p.detach().clone() for n, p in run.model.named_parameters()}
            accuracies.append([task._measured(run.model, now, i, "test")[1] for i in range(3)])
    a = np.array(accuracies)  # (after task, of task)
    expected = np.mean([max(a[0, 0], a[1, 0]) - a[2, 0], a[1, 1] - a[2, 1]])
    found = task.evaluate(run.model, "test")
    assert found["forgetting"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx(a[2].mean())


def test_a_new_task_changes_the_masks_and_starts_without_moments(task):
    run, seen = go(task, 21, algorithm="static")
    name = "hidden.0"
    assert not (seen[19][name] & seen[20][name]).any()
    assert run.sparsifier.version == 1
    fresh = Run(config(algorithm="static"), task)
    for _ in range(20):
        fresh.before_step()
        fresh.advance()
    assert fresh.before_step()
    weight = fresh.model.hidden[0].weight
    assert all(
        not state.any() for state in fresh.optimizer.state[weight].values() if state.ndim == 2
    )
    assert (weight != 0).sum() == fresh.sparsifier.masks()[name].nnz


REUSE = {**OPTIONS, "subnetworks": "reuse"}


@pytest.mark.parametrize("algorithm", ["static", "set", "rigl"])
@pytest.mark.parametrize("preset", ["small", "cnn"])
def test_later_tasks_compute_with_earlier_weights_and_never_change_them(algorithm, preset):
    task = make_task("continual", REUSE).prepare()
    changes = {
        "algorithm": algorithm, "pattern": "unstructured", "preset": preset, "weight_decay": 0.1,
        "model_options": {"width": 4 if preset == "cnn" else 32},
    }  # fmt: skip
    run = Run(config(**changes, task_options=REUSE), task)
    first = None
    while run.step < 60:
        run.before_step()
        run.advance()
        masks = {n: m.array for n, m in run.sparsifier.masks().items()}
        for name, mask in masks.items():
            assert not (task._taken[name] & ~mask).any()
            assert mask.sum() == run.sparsifier.plan.budgets(run.step)[name]
        if run.step == 20:
            layers = run.sparsifier.layers
            first = {n: layers[n].array(layers[n].parameter.detach()).copy() for n in masks}
            of_first = masks
    for name, layer in run.sparsifier.layers.items():
        values = layer.array(layer.parameter.detach())
        assert np.array_equal(values[of_first[name]], first[name][of_first[name]])
    active = sum(mask.sum() for mask in masks.values())
    whole = sum(mask.size for mask in masks.values())
    assert active == pytest.approx(0.6 * whole, rel=0.02)


def test_a_run_that_reuses_weights_goes_on_to_the_bit(tmp_path):
    settings = config(task_options=REUSE, weight_decay=0.1, test=True)
    whole = train(settings, tmp_path / "whole")
    for stop in (13, 31, 50):
        train(settings, tmp_path / "parts", stop_after=stop)
    parts = train(settings, tmp_path / "parts")
    assert parts.training["loss"].to_list() == whole.training["loss"].to_list()
    assert parts.test == whole.test and parts.test["forgetting"] == 0


def test_frozen_weights_are_of_use_where_tasks_are_alike():
    """Nearly all weights belong to the first of two tasks, which are one: the second needs few."""
    found = {}
    for kind in ("per_task", "reuse"):
        options = {"tasks": 2, "steps_per_task": 120, "subnetworks": kind, "scenario": "split"}
        task = make_task("continual", options).prepare()
        run = Run(
            config(task_options=options, algorithm="static", density=0.1, steps=240,
                   pattern="unstructured", model_options={"width": 64}), task,
        )  # fmt: skip
        while run.step < 240:
            run.before_step()
            run.advance()
        found[kind] = task.evaluate(run.model, "test")["accuracy"]
    assert found["reuse"] > found["per_task"] - 0.02


def test_a_cnn_needs_a_square_and_images_one_channel():
    with pytest.raises(InputError, match="inputs: value is 63"):
        MultiHeadConfig.preset("cnn", inputs=63)
    with pytest.raises(InputError, match="trunk 'rnn'"):
        MultiHeadConfig(trunk="rnn")


def test_validation_and_test_can_be_cut():
    task = make_task("continual", {**OPTIONS, "evaluation_examples": 30}).prepare()
    assert len(task._rows["test", 0]) == len(task._rows["validation", 2]) == 30
    assert len(task._rows["train", 0]) > 900


def test_a_dense_run_has_one_network(task):
    run, _ = go(task, 60, algorithm="dense", density=1.0)
    assert run.sparsifier is None and set(task.evaluate(run.model)) == {
        "loss", "accuracy", "forgetting",
    }  # fmt: skip


@pytest.mark.parametrize("scenario", ["permuted", "split"])
def test_tasks_come_one_after_the_other(scenario):
    task = make_task("continual", {"scenario": scenario, "tasks": 5, "steps_per_task": 3}).prepare()
    numbers = [int(task.batch(step, 4, 0)["task"]) for step in range(1, 20)]
    assert numbers == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 7
    batch = task.batch(5, 64, 0)
    assert int(batch["labels"].max()) == (1 if scenario == "split" else 9)
    same = task.batch(5, 64, 0)
    assert all(torch.equal(batch[name], same[name]) for name in batch)


def test_a_permutation_moves_pixels_and_changes_no_value():
    task = make_task("continual", {"tasks": 2, "steps_per_task": 1}).prepare()
    rows = task._rows["train", 0][:5]
    one, two = (task._of("train", rows, t)["inputs"] for t in (0, 1))
    assert not torch.equal(one, two)
    assert torch.equal(one.sort(1).values, two.sort(1).values)


def test_the_three_sets_are_disjoint(task):
    parts = [set(task._rows[split, 0]) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


def test_a_run_is_priced_and_records_a_version_for_each_task(tmp_path):
    record = train(config(steps=60), tmp_path / "run")
    assert {1, 21, 41} <= {first for first, _ in record.mask_versions}
    for name in ("ideal", "a100", "wafer", "zen3", "systolic"):
        assert record.net_time(load_device(name)).seconds[-1] > 0
    assert record.evaluations["forgetting"].to_list() == [0.0] * 4


def test_a_cyclic_plan_begins_anew_with_each_task():
    plan = CyclicPlan({"a": (4, 4)}, uniform, constant(0.5), 10, 0.3, "cosine", 75, 100, 2)
    assert [s for s in range(1, 301) if plan.is_update_step(s)] == [
        *range(10, 75, 10), *range(110, 175, 10),
    ]  # fmt: skip
    assert plan.drop_fraction_at(130) == plan.drop_fraction_at(30)
    assert plan.within(250) == 150 and plan.budgets(0) == {"a": 8}


@pytest.mark.parametrize("algorithm", [RigL(), Set()])
def test_isolation_changes_nothing_where_nothing_is_taken(algorithm):
    rng = np.random.default_rng(0)
    mask = rng.random((8, 12)) < 0.3
    weights = np.where(mask, rng.standard_normal((8, 12)), 0).astype(np.float32)
    gradients = rng.standard_normal((8, 12)).astype(np.float32)

    def update(rule):
        view = View(
            step=1, weights={"a": weights}, masks={"a": mask}, budgets={"a": int(mask.sum())},
            gradients={"a": gradients}, drop_fraction=0.5, pattern=projection("unstructured"),
            rng=np.random.default_rng(1),
        )  # fmt: skip
        return rule.update(view, {}).masks["a"]

    free = {"a": np.zeros((8, 12), dtype=bool)}
    assert np.array_equal(update(algorithm), update(isolated(algorithm, free)))
    taken = {"a": ~mask & (rng.random((8, 12)) < 0.7)}
    new = update(isolated(algorithm, taken))
    assert new.sum() == mask.sum() and not (new & taken["a"]).any()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm": "gmp"}, "cannot be kept"),
        ({"algorithm": "top_kast"}, "cannot be kept"),
        ({"pattern": "block:4,4"}, "block cannot be kept"),
        ({"schedule": "cubic"}, "schedule"),
        ({"model_options": {"tasks": 7}}, "task continual sets it"),
    ],
)
def test_what_cannot_be_isolated_is_refused(task, changes, says):
    with pytest.raises(InputError, match=says):
        Run(config(**changes), task)


@pytest.mark.parametrize(
    "options",
    [{"scenario": "other"}, {"subnetworks": "none"}, {"tasks": 0}, {"steps_per_task": 0},
     {"scenario": "split", "tasks": 3}],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=list(options)[-1]):
        make_task("continual", options)


def test_isolated_keeps_options_and_contract():
    one = isolated(RigL(rounding="ceil"), {})
    assert isinstance(one, RigL) and one.rounding == "ceil" and one.gradient == "update"
    assert isolated(Set(), {}).gradient == "never"
