"""What every registered task promises the trainer, the comparison and the agent."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from _tiny_run import WORDS

from hwsim.errors import InputError
from sparse_train.registries import TASKS
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import Prepared, make_task

pytest.importorskip("gymnasium", reason="task control needs it")
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
# Smaller than the defaults, where those take long to read or to evaluate.
SMALLER = {
    "mlm": {"budget_bytes": 200_000, "vocabulary_size": 300, "evaluation_windows": 8},
    "translation": {"max_pairs": 300, "evaluation_pairs": 4, "vocabulary_size": 400},
}


def options_of(name: str, folder) -> dict:
    if name == "translation":  # catalogues are not on every machine
        lines = [f"{a} {b} {c}\t{c} {a} {b}" for a in WORDS for b in WORDS for c in WORDS[:6]]
        (folder / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
        return {"text": str(folder / "pairs.tsv"), **SMALLER[name]}
    return SMALLER.get(name, {})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")

    @cache
    def of(name: str) -> Prepared:
        return make_task(name, options_of(name, folder)).prepare()

    return of


@pytest.mark.parametrize("name", TASKS.names())
def test_a_task_trains_its_own_model_and_measures_its_metric(prepared, name):
    task = prepared(name)
    torch.manual_seed(0)
    config = TrainConfig(task=name, batch_size=4, threads=1)
    model = task.build_for(config)
    task.before_step(1, model, None)
    loss = task.loss(model, task.batch(1, 4, 0))
    loss.backward()
    assert torch.isfinite(loss)
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    found = task.evaluate(model)
    assert {"loss", task.metric} <= found.keys()


@pytest.mark.parametrize("name", TASKS.names())
def test_every_step_has_batches_of_one_shape(prepared, name):
    task = prepared(name)
    model = task.build_for(TrainConfig(task=name, batch_size=4, threads=1))
    shapes = []
    for step in (1, 2):
        task.before_step(step, model, None)
        shapes.append({n: t.shape for n, t in task.batch(step, 4, 0).items()})
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", TASKS.names())
def test_a_task_describes_itself_with_its_digest(prepared, name):
    assert prepared(name).describe()["digest"] == prepared(name).digest


@pytest.mark.parametrize("name", TASKS.names())
def test_another_tasks_model_is_refused(prepared, name):
    with pytest.raises(InputError, match="model"):
        prepared(name).build_model("no_such_model", "tiny", {})


@pytest.mark.parametrize("name", TASKS.names())
def test_only_validation_and_test_are_evaluated(prepared, name):
    task = prepared(name)
    model = task.build_for(TrainConfig(task=name, batch_size=4, threads=1))
    with pytest.raises(InputError, match="split: value is 'train'; allowed: validation, test"):
        task.evaluate(model, "train")


@pytest.mark.parametrize("name", TASKS.names())
def test_a_copy_of_a_task_serves_another_run(prepared, name):
    """What one run's steps leave behind is not seen by a run on a copy, which begins anew."""
    config = TrainConfig(task=name, batch_size=4, threads=1)
    one, other = copy.copy(prepared(name)), copy.copy(prepared(name))
    torch.manual_seed(0)
    model = one.build_for(config)
    one.before_step(1, model, None)
    torch.manual_seed(0)
    other.before_step(1, other.build_for(config), None)
    expected = {n: t.clone() for n, t in other.batch(2, 4, 0).items()}
    for step in range(2, 6):
        one.before_step(step, model, None)
    found = other.batch(2, 4, 0)
    assert all(torch.equal(found[n], t) for n, t in expected.items())
