"""Progress of long work: lines in a log, a bar on a terminal, nothing of short work."""

import sys
import threading
import time

import pytest

from analysis.display import console


class Immediate(threading.Timer):
    """A timer whose time is over when it starts."""

    def start(self):
        self.function()

    def join(self, timeout=None):
        pass


@pytest.fixture
def at_once(nettime, monkeypatch):
    """All work is long."""
    monkeypatch.setattr(console.threading, "Timer", Immediate)
    monkeypatch.setattr(console, "LINES_S", 0.0)


def test_a_log_has_a_line_of_each_unit_that_took_long(at_once, capsys):
    with console.progress_bar("pricing bert", 3) as update:
        update(1, "wafer")
        update(2, "zen3\x1b[2J")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "pricing bert: 0 of 3", "pricing bert: 1 of 3 (wafer)",
        "pricing bert: 2 of 3 (zen3\\x1b[2J)",
    ]  # fmt: skip


def test_a_long_first_unit_is_told_and_lines_keep_apart(at_once, capsys, monkeypatch):
    monkeypatch.setattr(console, "LINES_S", 1e6)
    with console.progress_bar("training", 9) as update:
        for done in range(1, 9):
            update(done)
    assert capsys.readouterr().err == "training: 0 of 9\n"


def test_short_work_and_work_that_fails_at_once_show_nothing(capsys):
    with console.progress_bar("pricing", 2) as update:
        update(1)
    with pytest.raises(KeyError), console.progress_bar("pricing", 2):
        raise KeyError
    assert capsys.readouterr().err == ""
    assert not any(isinstance(t, threading.Timer) for t in threading.enumerate())


def test_a_terminal_has_a_bar_that_is_gone_at_the_end(at_once, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress_bar("pricing bert", 3) as update:
        update(2, "wafer")
        time.sleep(0.2)  # the bar is drawn ten times a second
    drawn = capsys.readouterr().err
    assert "pricing bert" in drawn and "/3" in drawn and drawn.endswith("\x1b[2K")


@pytest.mark.parametrize("what", [("estimate", "bert-tiny", "-d", "ideal"), ("devices",)])
def test_commands_tell_in_a_log_what_they_are_at_and_answers_stay_clean(at_once, nettime, what):
    made = nettime(*what, "--json")
    assert made.json["command"] == what[0]
    assert " of " in made.err and all(": " in line for line in made.err.splitlines())
