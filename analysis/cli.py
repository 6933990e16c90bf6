"""The command `nettime`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from analysis.commands import (
    agent,
    calibrate,
    compare,
    crosscheck,
    demo,
    devices,
    estimate,
    measure,
    plan,
    report,
    results,
    runs,
    tasks,
    train,
    wide,
)
from analysis.display.console import Interrupted, print_anywhere, shown
from hwsim.errors import InputError

app = typer.Typer(
    name="nettime",
    help="What training a sparse network really costs: net training time, device by device.",
    epilog="Start with [bold]nettime demo[/bold] (five minutes) or "
    "[bold]nettime estimate bert-base --density 0.1[/bold] (seconds).",
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    estimate, train, compare, plan, agent, tasks, devices, measure, wide, calibrate, crosscheck,
    report, runs, results, demo,
):  # fmt: skip
    module.register(app)


def _show_version(asked: bool) -> None:
    if asked:
        from nettime import __version__

        print(f"nettime {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show it."),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and leaves the process with its exit code.

    0: done. 2: bad input, one line on stderr. 130: interrupted, one line that says how to go on.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Runs a command; its exit code."""
    print_anywhere()
    try:
        code = app(args=arguments or ["--help"], prog_name="nettime", standalone_mode=False)
    except InputError as error:
        return _fail(str(error))
    except Interrupted as interrupted:
        return _interrupted(str(interrupted))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted("")
    except BrokenPipeError:
        # The reader (head, a pager) has what it wanted; the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}")
    except Exception as error:
        # Usage errors: their class has moved between typer's versions, their method has not.
        if not hasattr(error, "format_message"):
            raise
        return _fail(error.format_message())
    if code == 130:
        return _interrupted("")
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    print(f"nettime: error: {_one_line(message)}", file=sys.stderr)
    return 2


def _interrupted(how_to_go_on: str) -> int:
    text = how_to_go_on or "nothing was left behind; the same command starts again"
    print(f"nettime: interrupted: {_one_line(text)}", file=sys.stderr)
    return 130


def _one_line(message: str) -> str:
    return shown(" ".join(message.split()))
