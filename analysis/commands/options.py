"""Options that several commands share."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.checks import check_number
from hwsim.errors import InputError
from hwsim.files import remove_leftovers

if TYPE_CHECKING:
    from hwsim import Device
    from sparse_train.runs.config import TrainConfig

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device", "-d", help="A device by name (see nettime devices) or a .toml file; repeatable."
    ),
]
DEFAULT_DEVICES = ("ideal", "wafer")


def load_devices(names: Sequence[str] | None) -> list[Device]:
    """The devices asked for, each once; those of DEFAULT_DEVICES if none is."""
    from hwsim import load_device

    return [load_device(name) for name in dict.fromkeys(names or DEFAULT_DEVICES)]


def share(option: str, value: float) -> float:
    """`value` if it lies in [0, 1]; an InputError that names the option if not."""
    check_number(option, value, least=0.0, most=1.0)
    return value


def at_least(option: str, value: int, least: int = 1) -> int:
    """`value` if it is large enough; an InputError that names the option if not."""
    check_number(option, value, least=least)
    return value


def above_zero(option: str, value: float) -> float:
    """`value` if it is positive and finite; an InputError that names the option if not."""
    check_number(option, value, above=0.0)
    return value


def chosen(option: str, value: str, allowed: Sequence[str]) -> str:
    """`value` if it is one of `allowed`; an InputError that lists them if not."""
    from hwsim.errors import unknown

    if value not in allowed:
        raise InputError(unknown(option, value, tuple(allowed)))
    return value


def written(option: str, path: Path | None, *endings: str) -> None:
    """An InputError, before any work is done, unless `path` can be the name of such a file."""
    if path is not None and (path.suffix not in endings or path.is_dir()):
        ends = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise InputError(f"{option}: value is {str(path)!r}; allowed is a name that ends in {ends}")


def figure(option: str, path: Path | None) -> None:
    """`written`, of a figure."""
    if path is not None:
        from analysis.reporting.plots import FIGURES

        written(option, path, *FIGURES)


def config(content: dict[str, Any], settings: Sequence[str]) -> TrainConfig:
    """A TrainConfig of the options and of `name=value` settings, whose values are read as JSON."""
    import json

    from sparse_train.runs.config import TrainConfig

    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise InputError(f"--set: value is {setting!r}; allowed is name=value")
        try:
            content[name] = json.loads(text)
        except ValueError:
            content[name] = text
    return TrainConfig.from_json(content)


@contextmanager
def claimed(path: Path, what: str) -> Iterator[None]:
    """Keeps other commands from writing to a file or folder meanwhile.

    Raises:
        InputError: another command has it, or it cannot be made.
    """
    from filelock import FileLock, Timeout

    folder = path if what == "folder" else path.absolute().parent
    lock = FileLock(folder / (".command.lock" if what == "folder" else f".{path.name}.lock"))
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        for one in _own(folder) if what == "folder" else (folder,):
            remove_leftovers(one, "" if what == "folder" else path.name)
    except Timeout:
        raise InputError(f"{path}: another command is writing to this {what}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    try:
        yield
    except BaseException:
        # What was refused leaves no empty folder.
        if made and [p.name for p in folder.iterdir()] == [Path(lock.lock_file).name]:
            Path(lock.lock_file).unlink(missing_ok=True)
            for one in made:
                one.rmdir()
        raise
    finally:
        lock.release()


def _own(folder: Path) -> Iterator[Path]:
    """A folder and those in it, but for runs: they have locks of their own."""
    for at, below, _ in os.walk(folder):
        yield Path(at)
        below[:] = [name for name in below if not any(Path(at, name).glob(".*lock"))]


def command_line() -> str:
    """This command as a page tells it, to be pasted into a shell."""
    return shlex.join(["nettime", *sys.argv[1:]])


def examples(*lines: str) -> str:
    """Text for the end of a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"[cyan]{line}[/cyan]" for line in lines)
