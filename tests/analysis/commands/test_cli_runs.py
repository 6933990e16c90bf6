"""`nettime train` and `nettime report`, on a text small enough to train on in seconds."""

import re
from pathlib import Path

import pytest

SETTINGS = (
    "warmup_steps=2", "eval_interval=3", "checkpoint_interval=4", "threads=1",
    'task_options={"text": "TEXT", "vocabulary_size": 280, "tokens": 16, "evaluation_windows": 4}',
    'model_options={"layers": 1, "width": 32, "ffn": 64, "heads": 2}',
)  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for number in range(40):
        words = " ".join(f"word{(number * i) % 17} and then" for i in range(60))
        (folder / f"{number}.txt").write_text(words)
    return folder


def arguments(text, run, *more):
    made = ["train", "--run", run, "--steps", "9", "--batch-size", "4", "--device", "ideal"]
    for setting in SETTINGS:
        made += ["--set", setting.replace("TEXT", str(text))]
    return [*made, *more]


RIGL = ("--algorithm", "rigl", "--density", "0.25", "--set", "update_interval=2")


@pytest.fixture
def runs(nettime, text, tmp_path):
    """A dense and a sparse run."""
    folders = tmp_path / "dense", tmp_path / "rigl"
    for folder, more in zip(folders, ((), RIGL), strict=True):
        assert nettime(*arguments(text, folder, *more)).code == 0
    return folders


def test_train_prints_net_time_and_fits_80_columns(nettime, text, tmp_path):
    shown = nettime(*arguments(text, tmp_path / "run", *RIGL))
    assert shown.code == 0, shown.err
    assert "RigL 25 %: 9 steps" in shown.out
    assert "net training time" in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines() if not line.startswith("run:"))


def test_train_says_which_layers_the_sparse_kernels_serve(nettime, text, tmp_path):
    kernels = ("--compute", "sparse")
    shown = nettime(*arguments(text, tmp_path / "sparse", *RIGL, *kernels))
    assert re.search(r"^sparse kernels: (\d+) of \1 masked layers$", shown.out, re.MULTILINE)
    dense = (*RIGL, "--density", "0.7", "--distribution", "uniform", *kernels)
    shown = nettime(*arguments(text, tmp_path / "dense", *dense))
    assert "sparse kernels: 0 of" in shown.out
    assert "more dense: density 0.70 is above 0.4" in shown.out
    found = nettime(*arguments(text, tmp_path / "dense", *dense, "--json")).json
    assert found["compute"]["sparse"] == [] and len(found["compute"]["dense"]) > 1


def test_the_same_command_again_only_prices_and_says_the_same(nettime, text, tmp_path):
    command = arguments(text, tmp_path / "run", *RIGL, "--json")
    first = nettime(*command).json
    assert nettime(*command).json == first
    assert first["density"] == pytest.approx(0.25, abs=0.01)
    assert first["devices"]["ideal"]["net_time_s"] > 0
    assert [e["step"] for e in first["evaluations"]] == [0, 3, 6, 9]
    assert first["last_validation"]["loss"] == first["last_validation_loss"]


def test_train_says_what_the_task_measures_beside_the_loss(nettime, tmp_path):
    command = ("train", "--task", "images", "--steps", "2", "--device", "ideal")
    shown = nettime(*command, "--run", tmp_path / "run")
    found = nettime(*command, "--run", tmp_path / "run", "--json").json["last_validation"]
    assert f"last step: accuracy {found['accuracy']:.4g}." in shown.out


def test_report_compares_runs_without_a_network(nettime, runs, tmp_path):
    out = tmp_path / "page" / "report.html"
    shown = nettime("report", *runs, "--out", out)
    assert shown.code == 0, shown.err
    page = out.read_text()
    assert not re.search(r"https?://", page)
    assert "RigL 25 %" in page and "<td>dense</td>" in page
    assert "reaches loss" in shown.out


def test_report_as_json_has_times_of_each_run(nettime, runs, tmp_path):
    found = nettime("report", *runs, "--out", tmp_path / "r.html", "--json").json
    assert {c["name"] for c in found["contenders"]} == {"dense", "RigL 25 %"}
    assert set(found["targets"][0]["times"]["ideal"]) == {"dense", "RigL 25 %"}
    assert found["verdicts"]


def test_two_runs_of_one_name_are_told_apart_by_their_folders(nettime, runs, tmp_path):
    found = nettime("report", runs[0], runs[0], "--out", tmp_path / "r.html", "--json").json
    assert [c["name"] for c in found["contenders"]] == ["dense (dense)", "dense (dense, 2)"]


def test_a_half_written_run_is_one_line(nettime, runs, tmp_path):
    (runs[1] / "metrics.parquet").write_bytes(b"PAR1")
    assert "metrics.parquet" in nettime("report", *runs, "--out", tmp_path / "r.html").error
    assert not (tmp_path / "r.html").exists()


def test_a_run_without_steps_is_one_line(nettime, runs):
    (runs[0] / "metrics.parquet").unlink()
    assert "metrics.parquet: missing" in nettime("report", runs[0]).error
    (runs[0] / "manifest.json").unlink()
    assert "train it first" in nettime("report", runs[0]).error


def test_a_folder_that_is_no_run_is_one_line(nettime, tmp_path):
    assert "not a run" in nettime("report", tmp_path).error


def test_a_run_folder_that_cannot_be_written_is_one_line(nettime, text, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in nettime(*arguments(text, tmp_path / "file" / "run")).error


def test_a_run_of_other_settings_is_not_overwritten(nettime, text, runs):
    assert "seed" in nettime(*arguments(text, runs[0], "--seed", "1")).error


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--algorithm", "riggle"), "rigl"),
        (("--density", "2"), "at least 0, at most 1"),
        (("--density", "0.1"), "allowed with algorithm 'dense' is 1"),
        (("--density", "0.1", "--sparsity", "0.9"), "allowed is one of them"),
        (("--pattern", "stripes", "--algorithm", "set"), "unstructured"),
        (("--preset", "huge"), "tiny"),
        (("--set", "stepz=3"), "did you mean 'steps'?"),
        (("--set", "steps"), "name=value"),
        (("--steps", "0"), "at least 1"),
        (("--learning-rate", "-1"), "above 0"),
        (("--text", "/no/such/text"), "/no/such/text"),
        (("--device", "idael"), "ideal"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_run(nettime, text, tmp_path, more, words):
    command = arguments(text, tmp_path / "run", *more)
    if "--text" in more:
        command = ["train", "--run", tmp_path / "run", *more]
    assert words in nettime(*command).error
    assert not (tmp_path / "run" / "config.json").exists()


def test_report_leaves_out_what_cannot_be_compared_and_says_so(nettime, runs, tmp_path):
    other = tmp_path / "images"
    nettime("train", "--task", "images", "--steps", "2", "--device", "ideal", "--run", other)
    found = nettime("report", *runs, other, "--out", tmp_path / "r.html", "--json").json
    assert {c["name"] for c in found["contenders"]} == {"dense", "RigL 25 %"}
    assert any("Left out" in note and "images" in note for note in found["notes"])
