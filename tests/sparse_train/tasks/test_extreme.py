"""The extreme classification task, through the trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwsim import InputError, load_device
from hwsim.masks.condensed import CondensedMask
from sparse_train.compute.condensed import CondensedLinear
from sparse_train.runs.config import TrainConfig
from sparse_train.runs.peak_memory import measure
from sparse_train.runs.run import Run, private_randomness
from sparse_train.tasks import make_task
from sparse_train.trainer import train
from sparse_train.workload import workload

OPTIONS = {"data": "planted", "outputs": 200, "inputs": 150, "examples": 400,
           "evaluation_examples": 30}  # fmt: skip


def config(**changes):
    settings = {
        "task": "extreme", "task_options": OPTIONS, "model_options": {"width": 16},
        "algorithm": "srigl", "density": 0.25, "update_interval": 3, "steps": 8, "batch_size": 8,
        "warmup_steps": 2, "eval_interval": 4, "threads": 1, "learning_rate": 0.02,
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def task():
    return make_task("extreme", OPTIONS).prepare()


def test_batches_are_pure_and_of_one_shape(task):
    one, two, other = task.batch(3, 8, 0), task.batch(3, 8, 0), task.batch(4, 8, 0)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(one[name].shape == other[name].shape for name in one)
    assert not torch.equal(one["features"], other["features"])
    assert (one["labels"] <= 200).all() and (one["labels"] < 200).any(1).all()


@pytest.mark.parametrize(
    ("algorithm", "pattern", "condensed"),
    [("srigl", None, True), ("set", "fan_in", True), ("rigl", None, False), ("dense", None, False)],
)
def test_constant_fan_in_is_kept_condensed(task, algorithm, pattern, condensed):
    density = 1.0 if algorithm == "dense" else 0.25
    run = Run(config(algorithm=algorithm, pattern=pattern, density=density), task)
    assert isinstance(run.model.output, CondensedLinear) == condensed
    for step in range(4):
        run.before_step()
        assert np.isfinite(run.advance()[0]), step


def test_a_condensed_model_is_evaluated_as_its_matrix(task):
    with private_randomness(0):
        run = Run(config(), task)
        dense = task.build_model("extreme", "small", {"width": 16})
    layer = run.model.output
    with torch.no_grad():
        dense.features.load_state_dict(run.model.features.state_dict())
        dense.output.weight.zero_().scatter_(1, layer.inputs.long(), layer.values)
        dense.output.bias.copy_(layer.bias)
    assert task.evaluate(dense) == pytest.approx(task.evaluate(run.model), rel=1e-5)


def test_precision_counts_hits_among_the_best(task):
    class Fixed(torch.nn.Module):
        def best(self, features, weights, k):
            # Of each example one right label, at rank 2, and labels that nothing has.
            right = task_labels[: len(features), :1]
            return torch.cat([torch.full_like(right, -1), right, *[torch.full_like(right, -1)] * 3],
                             1)  # fmt: skip

        def forward(self, labels, **_):
            return type("Outcome", (), {"loss": torch.tensor(0.0)})

    task_labels = task.evaluation_batches()[0]["labels"]
    found = task.evaluate(Fixed())
    assert found["precision@1"] == 0 and found["precision@3"] == pytest.approx(1 / 3)
    assert found["precision@5"] == pytest.approx(1 / 5)


def test_a_run_records_masks_and_is_priced_on_every_kind_of_device(tmp_path):
    record = train(config(), tmp_path / "run")
    first = record.masks(0)["output"]
    assert record.steps == 8 and first.shape == (200, 16) and (first.row_nnz == 4).all()
    assert len(record.mask_versions) > 1
    assert record.figures["density"] == 0.25 and record.figures["explored"] > 0.25
    for name in ("ideal", "a100", "wafer", "zen3", "sigma-like", "systolic"):
        assert record.net_time(load_device(name)).seconds[-1] > 0
    assert "precision@1" in record.evaluations.columns


def test_a_step_is_priced_as_that_of_the_dense_model(task):
    batch = task.batch(1, 8, 0)
    sparse = workload(task.priced_model(Run(config(), task).model), batch)
    dense = workload(task.build_model("extreme", "small", {"width": 16}), batch)
    assert sparse.digest == dense.digest and sparse.layers["output"] == (200, 16)


def test_the_recorded_mask_is_never_a_matrix(task):
    mask = Run(config(), task).sparsifier.masks()["output"]
    assert isinstance(mask, CondensedMask) and mask.inputs.shape == (200, 4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"compute": "sparse"}, "compute"),
        ({"layers": "features"}, "layers"),
        ({"schedule": "cubic"}, "schedule"),
        ({"algorithm_options": {"colour": 1}}, "colour"),
        ({"model_options": {"outputs": 7}}, "task extreme sets it"),
        ({"model": "bert", "preset": "tiny"}, "allowed for task extreme is 'extreme'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(task, changes, says):
    with pytest.raises(InputError, match=says):
        Run(config(**changes), task)


@pytest.mark.parametrize(
    "options", [{"data": ""}, {"outputs": 1}, {"most_features": 0}, {"data": "/no/such/set"}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        make_task("extreme", options).prepare()


@pytest.mark.slow
def test_peak_memory_stays_under_one_and_a_half_of_the_need_at_100_000_outputs():
    options = {"data": "planted", "outputs": 100_000, "inputs": 2000, "examples": 2000,
               "evaluation_examples": 64}  # fmt: skip
    found = measure(
        config(task_options=options, model_options={"width": 512}, density=0.125, batch_size=32,
               update_interval=2, steps=4, end_step=4, checkpoint_interval=2)
    )  # fmt: skip
    assert found.weights == 6_400_000 and found.ratio < 1.5
    assert found.peak_bytes < found.dense_bytes / 4


def test_peak_memory_is_measured_only_where_it_can_be():
    with pytest.raises(InputError, match="task"):
        measure(TrainConfig())
