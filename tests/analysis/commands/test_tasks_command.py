"""`nettime tasks`, and every task through `nettime estimate`."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from analysis.cli import app
from hwsim.errors import InputError
from sparse_train.registries import TASKS


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_every_task_is_listed_with_its_model_metric_and_options():
    found = json.loads(run("tasks", "--json").stdout)["tasks"]
    assert [task["name"] for task in found] == list(TASKS.names())
    for task in found:
        assert all(task[key] for key in ("what", "model", "metric", "options"))


def test_the_table_fits_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run("tasks").stdout
    assert max(len(line) for line in text.splitlines()) <= 80
    for name in TASKS.names():
        assert name in text


READ_SLOWLY = ("control", "extreme", "mlm", "text_classification", "translation")


@pytest.mark.parametrize(
    "task",
    ["images", "continual", *(pytest.param(n, marks=pytest.mark.slow) for n in READ_SLOWLY)],
)
def test_a_task_is_priced_on_its_own_model_and_data(task):
    if task == "translation" and not any(Path("/usr/share/locale/de/LC_MESSAGES").glob("*.mo")):
        pytest.skip("no gettext catalogues on this machine")
    words = ("estimate", "--task", task, "--density", "0.2", "--device", "ideal", "--json")
    found = json.loads(run(*words).stdout)
    assert task in json.dumps(found)


def test_every_task_is_priced():
    assert {*READ_SLOWLY, "images", "continual", "recommendation"} == set(TASKS.names())


@pytest.mark.parametrize("more", [(), ("--model", "lightgcn", "--preset", "small")])
def test_a_task_without_products_under_masks_is_priced_and_says_so(more):
    words = ("estimate", "--task", "recommendation", "--density", "0.2", *more)
    found = json.loads(run(*words, "--device", "wafer", "--json").stdout)
    total = found["devices"][0]["total"]
    assert total["dense"]["seconds"] == total["sparse"]["seconds"] > 0
    assert found["coverage"]["layers"] == 0 and found["devices"][0]["speed_up_ceiling"] == 1
    assert "users and items, which are looked up, not multiplied" in found["note"]
    shown = run(*words, "--device", "ideal")
    assert "save memory and no time" in " ".join(shown.stdout.split())


def test_only_one_model_at_a_time():
    result = run("estimate", "bert-tiny", "--task", "images")
    assert result.exit_code != 0
    assert "give one of" in str(result.exception)


def priced(*words):
    found = run("estimate", "--task", "images", "--device", "ideal", "--json", *words)
    assert found.exit_code == 0, found.exception
    return json.loads(found.stdout)


def test_a_tasks_other_models_are_priced_as_train_would_have_them():
    own = priced()
    wide = priced("--set", 'model_options={"width_factor": 2}')
    cnn = priced("--model", "simple_cnn", "--preset", "small")
    assert own["model"] == wide["model"] == "task images, mlp-small"
    assert cnn["model"] == "task images, simple_cnn-small"
    weights = [found["coverage"]["weights"] for found in (own, wide, cnn)]
    assert 2 * weights[0] < weights[1] and len(set(weights)) == 3
    everywhere = priced("--set", "layers=all")
    assert everywhere["coverage"]["layers"] > own["coverage"]["layers"]


def test_settings_that_change_no_step_are_refused():
    for words, says in (
        (("--task", "images", "--set", "steps=3"), "unknown setting of a step 'steps'"),
        (("--task", "images", "--model", "bert", "--preset", "tiny"), "unknown model 'bert'"),
        (("bert-tiny", "--preset", "small"), "need --task"),
        (("bert-tiny", "--set", "layers=all"), "need --task"),
    ):
        result = run("estimate", *words)
        assert isinstance(result.exception, InputError) and says in str(result.exception), words
