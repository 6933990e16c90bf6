"""Disks that fail: the n-th write, rename or fsync, the process dying there, no space left."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.chaos import children
from tests.chaos.children import Broken
from tests.chaos.commands import Command
from tests.chaos.kills import Whole, ends_as_whole, nothing_half_written, nothing_left_over
from tests.chaos.lanes import Counts

KINDS = {"w": "write", "r": "rename", "f": "fsync"}
WORKERS_CALLS = 12
ACTIONS = {0: "dies", errno.EIO: "EIO", errno.ENOSPC: "ENOSPC"}


def shim(folder: Path) -> Path | None:
    """The library that fails calls, built by the C compiler; None where there is none."""
    source, built = Path(__file__).with_name("faults.c"), folder / "faults.so"
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl"],
        capture_output=True,
    )
    return built if done.returncode == 0 else None


def failing(
    command: Command, whole: Whole, folder: Path, rng: random.Random, count: int, counts: Counts
) -> None:
    """One call fails or kills; one line says so, and the same command then goes on."""
    library = os.environ["LD_PRELOAD"]
    totals = _calls(command, whole, folder, library)
    for _ in range(count):
        attack = _fresh(folder)
        kind = rng.choice([k for k in KINDS if totals[k]])
        action, n = rng.choice(list(ACTIONS)), rng.randint(1, totals[kind])
        child = children.start(
            command.arguments(attack / command.place), folder / "log",
            _armed(command, library, kind, n, action, attack),
        )  # fmt: skip
        code = children.wait(child, whole.limit_s)
        what = f"{command.name}: {KINDS[kind]} {ACTIONS[action]}"
        try:
            if action or code != -signal.SIGKILL:
                refused = children.refused(child, code)
                what += ", refused" if refused else ", went on"
            children.asked(nothing_half_written, attack)
            if action:
                nothing_left_over(attack)
            ends_as_whole(command, whole, attack / command.place, folder)
            nothing_left_over(attack)
        except Broken as error:
            raise Broken(f"{what}, call {n} of {totals[kind]}: {error}") from None
        counts[what] += 1
        counts.done(1, count)


def full(
    command: Command, whole: Whole, folder: Path, rng: random.Random, count: int, counts: Counts
) -> None:
    """A small file system fills up; with more room the same command goes on."""
    needed = sum(p.stat().st_size for p in whole.folder.rglob("*") if p.is_file())
    for number in range(count):
        counts.done(number > 0, count)
        attack = _fresh(folder)
        pages = max(2, int(needed / 4096 * rng.uniform(0.05, 1.3)))
        if not _mounted(attack, f"size={pages * 4096}"):
            _limited(command, whole, attack, int(needed * rng.uniform(0.01, 0.5)), counts)
            continue
        try:
            place = attack / command.place
            child = children.start(command.arguments(place), folder / "log", command.before)
            refused = children.refused(child, children.wait(child, whole.limit_s))
            children.asked(nothing_half_written, attack)
            _mounted(attack, "remount,size=256m")
            ends_as_whole(command, whole, place, folder)
            counts[f"{command.name}: tmpfs full, " + ("refused" if refused else "fitted")] += 1
        finally:
            subprocess.run(["umount", str(attack)], check=True)


def _limited(command: Command, whole: Whole, attack: Path, most_bytes: int, counts: Counts) -> None:
    """In place of a full disk, where nothing may be mounted: no file may grow beyond a size."""

    def before() -> None:
        command.before()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    place = attack / command.place
    child = children.start(command.arguments(place), attack.parent / "log", before)
    refused = children.refused(child, children.wait(child, whole.limit_s))
    children.asked(nothing_half_written, attack)
    ends_as_whole(command, whole, place, attack.parent)
    counts[f"{command.name}: file size limited, " + ("refused" if refused else "fitted")] += 1


def _mounted(folder: Path, options: str) -> bool:
    if os.geteuid() or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", options, "chaos", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _fresh(folder: Path) -> Path:
    attack = folder / "attack"
    shutil.rmtree(attack, ignore_errors=True)
    attack.mkdir(parents=True)
    return attack


def _armed(
    command: Command, library: str, kind: str, n: int, action: int, where: Path
) -> Callable[[], None]:
    def before() -> None:
        command.before()
        # Workers are new processes: the library finds this when it is loaded.
        os.environ["CHAOS_FAULT"] = f"{kind} {n} {action} {where}"
        ctypes.CDLL(library).chaos_arm(
            ctypes.c_char(kind.encode()), ctypes.c_long(n), action, os.fsencode(where)
        )

    return before


def _calls(command: Command, whole: Whole, folder: Path, library: str) -> dict[str, int]:
    """How many calls of each kind the command makes in its first process."""
    attack, found = _fresh(folder), folder / "calls"

    def work() -> int:
        from analysis.cli import run

        code = run([str(a) for a in command.arguments(attack / command.place)])
        seen = ctypes.CDLL(library).chaos_seen
        found.write_text(" ".join(str(seen(ctypes.c_char(k.encode()))) for k in KINDS))
        return code

    child = children.forked(work, folder / "log", _armed(command, library, "w", -1, 0, attack))
    children.refused(child, children.wait(child, whole.limit_s), allowed=(0,))
    counts = [int(c) for c in found.read_text().split()]
    # Workers make calls of their own, not counted here.
    least = WORKERS_CALLS if command.name in ("compare", "demo") else 0
    return {kind: max(count, least) for kind, count in zip(KINDS, counts, strict=True)}
