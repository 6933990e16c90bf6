"""An agent's page is what its stored table gives."""

import json

import pytest
from test_outcome import contender, outcome

from analysis import results
from analysis.agents.outcome import AGENT
from analysis.agents.stored import AgentPage
from hwsim import InputError


@pytest.fixture
def stored():
    found = outcome(
        contender(AGENT, 1.2, rates=(1.0, 2.0), learnt_from=30, cost=4.0),
        contender("dense", 1.0, spread=0.0), contender("cma_es", 0.9, reached=False, note="a; b"),
    )  # fmt: skip
    return AgentPage(
        found, "A title", "nettime agent compare …", ("Learnt in: a world.",), 12.5, 0,
        ("page_return.svg",), ("a note",), ("A remark.",),
    )  # fmt: skip


def test_the_page_comes_again_from_the_table(stored, tmp_path):
    path = tmp_path / "page.json"
    path.write_text(results.dumps(stored))
    again = results.load(path)
    assert again.page == stored.page and results.dumps(again) == results.dumps(stored)
    for said in ("# A title", "A remark.", "Learnt in: a world.", "- a note", "page_return.svg"):
        assert said in stored.page


def test_a_changed_number_is_found(stored, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(stored.page)
    content = json.loads(results.dumps(stored))
    content["contenders"]["wafer"][0]["runs"][0]["speed_ups"][0] *= 3
    results.beside(page).write_text(json.dumps(content))
    assert len(results.disagreements(tmp_path)[0]) == 1


def test_whole_episodes_are_not_in_a_table(stored, tmp_path):
    path = tmp_path / "page.json"
    path.write_text(results.dumps(stored))
    with pytest.raises(InputError, match="agent: its episodes were not stored"):
        _ = results.load(path).outcome.agent("wafer").played
