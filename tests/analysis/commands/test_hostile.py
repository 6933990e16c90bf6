"""What strangers' names and a poor terminal do to the command line: nothing."""

import os
import subprocess
import sys

import pytest
from filelock import FileLock

from analysis.cli import run
from analysis.commands import options
from analysis.display.console import shown
from hwsim import InputError

ESCAPES = "\x1b]0;owned\x07\x1b[2J"


def test_a_terminal_is_sent_no_commands_from_files(tmp_path, capsys):
    name = "a\x1b[31mb.toml"
    (tmp_path / name).write_text("model = 3\n")
    assert run(["estimate", "bert-tiny", "--device", str(tmp_path / name)]) == 2
    assert "\x1b" not in capsys.readouterr().err
    assert shown(ESCAPES) == r"\x1b]0;owned\x07\x1b[2J"
    from analysis.display.console import stdout
    from analysis.display.tables import table

    stdout().print(table(ESCAPES, ("a", ESCAPES), [("1", ESCAPES)]))
    stdout().print(f"text {ESCAPES}")
    out = capsys.readouterr().out
    assert "owned" in out and "\x1b" not in out and "\x07" not in out


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
     {"PYTHONIOENCODING": "latin-1"}],
)  # fmt: skip
def test_no_locale_is_an_error(environment):
    for arguments in (["devices"], ["devices", "--json"], ["estimate", "bert-größe"]):
        done = subprocess.run(
            [sys.executable, "-c", "from analysis.cli import main; main()", *arguments],
            env={**os.environ, **environment}, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 2)
        assert b"Traceback" not in done.stderr


def test_a_file_or_folder_in_use_is_refused(tmp_path):
    with options.claimed(tmp_path / "a.jsonl", "file"):
        with pytest.raises(InputError, match="another command"):
            options.claimed(tmp_path / "a.jsonl", "file").__enter__()
        options.claimed(tmp_path / "b.jsonl", "file").__enter__()
    with (
        options.claimed(tmp_path / "runs", "folder"),
        pytest.raises(InputError, match="another command"),
    ):
        options.claimed(tmp_path / "runs", "folder").__enter__()
    with options.claimed(tmp_path / "runs", "folder"):
        pass


def test_calibrate_refuses_a_file_that_is_being_written(tmp_path, capsys):
    out = tmp_path / "mine.toml"
    with FileLock(tmp_path / ".mine.toml.lock"):
        assert run(["calibrate", "cpu", "--out", str(out)]) == 2
    assert "another command" in capsys.readouterr().err


def test_what_killed_commands_left_in_a_claimed_folder_goes_but_from_runs(tmp_path):
    for folder in ("", "quick", "quick/final", "quick/final/seed-0"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".report.html.1.abc.part").write_text("half")
    (tmp_path / "quick/final/seed-0/.lock").touch()
    with options.claimed(tmp_path, "folder"):
        left = [p.parent.name for p in tmp_path.rglob("*.part")]
    assert left == ["seed-0"]  # it has a lock of its own: another process may train in it
