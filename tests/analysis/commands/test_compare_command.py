import re

import pytest

from sparse_train.registries import TASKS

TINY = (
    "--task-option", "tokens=16", "--task-option", "vocabulary_size=300",
    "--task-option", "evaluation_windows=8", "--batch-size", "4", "--rate", "0.002",
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-a", "riggle"), "riggle"),
        (("-a", "set,speed=2"), "option of set"),
        (("--ablation",), "--ablation"),
        (("--density", "1.5"), "densities"),
        (("--seeds", "0"), "--seeds"),
        (("--set", "seed=3"), "--set: seed"),
        (("--set", "optimiser=adamw"), "optimiser"),
        (("--task-option", "tokens"), "--task-option"),
        (("--task", "chess"), "chess"),
        (("--task-option", "tokenz=4"), "tokenz"),
        (("--device", "abacus"), "abacus"),
        (("--set", "pattern=blok"), "blok"),
        (("-a", "srigl,pattern=2:4"), "fan_in"),
        (("-a", "rigl,gamma=2"), "gamma"),
        (("--set", "distribution=erq"), "erq"),
        (("--plot", "figure.bmp"), "figure.bmp"),
        (("--report", "report.pdf"), "ends in .html"),
    ],
)
def test_bad_input_is_one_line_before_any_work(nettime, tmp_path, options, message, monkeypatch):
    prepared = []
    for name in TASKS.names():
        monkeypatch.setattr(TASKS.get(name), "prepare", lambda task: prepared.append(task))
    assert message in nettime("compare", "--out", tmp_path / "runs", *options).error
    assert not (tmp_path / "runs").exists()
    assert not prepared, "data was prepared for arguments that are refused"


@pytest.mark.slow
def test_a_comparison_is_printed_written_and_gone_on_with(nettime, tmp_path):
    out, page = tmp_path / "runs", tmp_path / "page.md"
    plot, report = tmp_path / "plot.svg", tmp_path / "report.html"
    command = (
        "compare", "--quick", "--out", out, "-a", "set", "-a", "srigl", "--ablation",
        "--density", "0.2", "--device", "ideal", *TINY,
    )  # fmt: skip
    first = nettime(*command, "--write", page, "--plot", plot, "--report", report)
    assert first.code == 0, first.err
    assert max(map(len, first.out.splitlines())) <= 80 + len(str(tmp_path))
    names = ("dense", "narrower 20 %", "SET 20 %", "SRigL 20 %", "SRigL no ablation 20 %")
    for name in names:
        assert name in first.out
        assert f"| {name} |" in page.read_text()
    assert "<svg" in plot.read_text()
    assert "http:" not in re.sub(r'xmlns\S*="[^"]*"', "", report.read_text())
    # One more algorithm: what is there is only read, and says the same.
    again = nettime(*command, "-a", "static", "--json")
    assert again.code == 0, again.err
    found = {c["name"]: c for c in again.json["contenders"]}
    narrower = {f"narrower {width} %{length}" for width in (10, 20, 50) for length in ("", " ×2")}
    assert set(found) == {*names, *narrower, "static 20 %"}
    assert found["narrower 20 %"]["flops"] < 0.5 * found["dense"]["flops"]
    assert found["SET 20 %"]["bytes"] < found["dense"]["bytes"]
    assert len(found["SET 20 %"]["test_by_seed"]) == 2
    third = nettime(*command, "-a", "static", "--json")
    assert third.out == again.out
