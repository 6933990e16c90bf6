import re

import pytest


@pytest.mark.slow
def test_the_quick_demo_compares_all_contenders_and_goes_on_where_it_was(nettime, tmp_path):
    command = ("demo", "--quick", "--out", tmp_path / "demo", "--device", "ideal", "--json")
    first = nettime(*command)
    assert first.code == 0, first.err
    found = first.json
    families = {c["family"] for c in found["contenders"]}
    assert families == {"dense", "narrower dense", "static", "rigl"}
    assert any("one seed" in line for line in found["main_study"])
    assert {c["device"] for c in found["conclusions"]} == {"ideal", "measured"}
    for contender in found["contenders"]:
        tried = contender["tried"]
        assert len(tried) == 2
        assert tried[f"{contender['learning_rate']:g}"] == min(tried.values())
    report = tmp_path / "demo" / "quick" / "report.html"
    assert not re.search(r"https?://|<script[^>]*\bsrc", report.read_text())  # nothing is loaded
    # All runs are complete: the second time they are only read, and say the same.
    again = nettime(*command).json
    assert [c["test_by_seed"] for c in again["contenders"]] == [
        c["test_by_seed"] for c in found["contenders"]
    ]


def test_a_folder_of_something_else_is_one_line(nettime, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in nettime("demo", "--quick", "--out", tmp_path / "file").error
