"""Lets tests of this folder import `hand_made`, and run a command in this process."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.display import console

sys.path.insert(0, str(Path(__file__).parent))


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error; fails if there is anything else."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("nettime: error: "), self.err
        return lines[0].removeprefix("nettime: error: ")


@pytest.fixture
def nettime(capsys, monkeypatch):
    """Runs `nettime …` on a terminal of 80 columns."""
    from analysis.cli import run

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(console, "QUIET_S", 1e6)  # no progress on a machine that is slow

    def call(*arguments) -> Ran:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call
