"""Commands as child processes of this one, forked after the imports: started, ended, looked at."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANG_S = 20.0  # beyond what the same work took without a fault
# Linux: a signal when the parent dies; orphans become children of this process.
_PDEATHSIG, _SUBREAPER = 1, 36


class Broken(Exception):
    """An invariant that did not hold."""


@dataclass(frozen=True)
class Child:
    """A command in a process group of its own; `log` holds what it wrote."""

    pid: int
    log: Path


def adopt() -> None:
    """Lets this process reap the workers of commands that were killed (Linux; else a no-op)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """A suite that was killed leaves no command behind (Linux; else a no-op)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(arguments: Sequence[str], log: Path, before: Callable[[], None] = lambda: None) -> Child:
    """Forks a child that runs the command `nettime` with these arguments."""

    def command() -> int:
        from analysis.cli import run

        return run([str(a) for a in arguments])

    return forked(command, log, before)


def forked(work: Callable[[], int], log: Path, before: Callable[[], None]) -> Child:
    """A child that ends with what `work` returns, 1 and a traceback if it raises."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log)
    code = 1
    try:
        os.setsid()
        end_with_parent()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        before()
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def asked(question: Callable[..., Any], *arguments: Any, limit_s: float = 3 * HANG_S) -> Any:
    """What `question(*arguments)` returns in a child.

    This process must stay one of a single thread, that children can be forked from: what reads
    tables would start a pool of them.

    Raises:
        Broken: as the question; or it raised anything else.
    """
    with tempfile.TemporaryDirectory() as name:
        told = Path(name) / "told"

        def work() -> int:
            try:
                answer = question(*arguments)
            except Broken as error:
                answer = error
            told.write_bytes(pickle.dumps(answer))
            return 0

        child = forked(work, Path(name) / "log", lambda: None)
        if wait(child, limit_s):
            raise Broken(f"{question.__name__}: {text(child)[-600:]}")
        answer = pickle.loads(told.read_bytes())
    if isinstance(answer, Broken):
        raise answer
    return answer


def code_of(status: int) -> int:
    return os.waitstatus_to_exitcode(status)


def wait(child: Child, limit_s: float) -> int:
    """The exit code (−n for signal n).

    Raises:
        Broken: the child, or a worker of it, is still there after `limit_s`.
    """
    until = time.monotonic() + limit_s
    while True:
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > until:
            kill(child)
            raise Broken(f"hang of {limit_s:.0f} s: {text(child)[-300:]}")
        time.sleep(0.01)
    gone(child)
    return code_of(status)


def kill(child: Child, *, whole_group: bool = True) -> bool:
    """Kills a child, with its workers or alone; whether it was still running."""
    pid, _ = os.waitpid(child.pid, os.WNOHANG)
    if pid:
        gone(child)
        return False
    if whole_group:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    gone(child)
    return True


def gone(child: Child) -> None:
    """Waits until no worker of an ended child is left.

    Raises:
        Broken: one is, after `HANG_S`; it is killed.
    """
    until = time.monotonic() + HANG_S
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-child.pid, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(child.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        if time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise Broken("workers outlive their command")
        time.sleep(0.02)


def text(child: Child) -> str:
    return child.log.read_bytes().decode("utf-8", "replace")


def refused(child: Child, code: int, *, allowed: Sequence[int] = (0, 2)) -> bool:
    """Whether a command that ended refused, in one line that says why.

    Raises:
        Broken: another exit code, a traceback, or no such line.
    """
    said = text(child)
    if "Traceback" in said or code not in allowed:
        raise Broken(f"exit code {code}: {said[-400:]}")
    errors = [line for line in said.splitlines() if line.startswith("nettime: error: ")]
    if code == 2 and len(errors) != 1:
        raise Broken(f"{len(errors)} lines of error: {said[-400:]}")
    return code == 2
