"""Pages and the tables that they come from."""

import json

import pytest
from test_compare import LOSSES, table, ten

from analysis import results
from analysis.comparing.stored import ComparisonPage
from analysis.results import beside, disagreements, dumps, load
from hwsim import InputError


def written(folder, name="page", **changes):
    one = ComparisonPage(
        table(ten(LOSSES), **changes), "A title", "nettime compare …", ("A remark.",)
    )
    page = folder / f"{name}.md"
    page.write_text(one.page)
    beside(page).write_text(dumps(one))
    return page


def test_a_stored_table_gives_its_page_again(tmp_path):
    page = written(tmp_path, trivial={"unigram": {"loss": 2.55}})
    again = load(beside(page))
    assert again.page == page.read_text() and "A remark." in again.page
    assert dumps(again) == beside(page).read_text()
    assert disagreements(tmp_path) == ([], [])


def test_a_run_that_diverged_is_stored_too(tmp_path):
    losses = ten(LOSSES)
    losses["SET"][3] = float("nan")
    one = ComparisonPage(table(losses), "t", "c")
    page = tmp_path / "p.md"
    beside(page).write_text(dumps(one))
    json.loads(beside(page).read_text(), parse_constant=pytest.fail)
    assert load(beside(page)).page == one.page


def test_one_changed_number_is_found_on_either_side(tmp_path):
    page = written(tmp_path)
    page.write_text(page.read_text().replace("A title", "Another"))
    wrong, _ = disagreements(tmp_path)
    assert wrong == ["page.md: line 1 is not what page.json gives"]
    page = written(tmp_path)
    content = json.loads(beside(page).read_text())
    content["rows"][1]["runs"]["0"]["test"]["loss"] += 1
    beside(page).write_text(json.dumps(content))
    assert len(disagreements(tmp_path)[0]) == 1


def test_a_page_without_a_table_is_named_and_a_table_without_a_page_is_wrong(tmp_path):
    page = written(tmp_path)
    (tmp_path / "other.md").write_text("# Other\n")
    assert disagreements(tmp_path) == ([], ["other.md"])
    page.unlink()
    assert disagreements(tmp_path)[0] == ["page.json: has no page"]


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1}', "[]"])
def test_what_is_no_table_is_one_line(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        results.load(tmp_path / "x.json")


def test_the_command_checks_and_rewrites(nettime, tmp_path):
    page = written(tmp_path)
    assert nettime("results", tmp_path).code == 0
    page.write_text("# Nonsense\n")
    assert "page.md" in nettime("results", tmp_path).error
    table = json.loads(beside(page).read_text())
    concluded = table.pop("conclusions")
    beside(page).write_text(json.dumps({**table, "conclusions": []}))
    assert nettime("results", tmp_path, "--rewrite").code == 0
    assert "A title" in page.read_text()
    assert json.loads(beside(page).read_text())["conclusions"] == concluded
