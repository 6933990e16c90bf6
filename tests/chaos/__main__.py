"""`make chaos`: kills, failing disks, damage and hostile inputs by the thousand, counted by kind.

    python -m tests.chaos [--scale 0.1] [--only kills] [--command train] [--seed 1]

Seeded and bounded: at most an hour at full scale on two idle cores, parts side by side. Only
child processes of its own are killed. An invariant decides, not an example: a command ends with 0,
or with 2 and one line; what goes on after a kill or a fault ends, to the bit, like a run that
nothing disturbed; what a reader would see is whole; what is damaged is refused by name or makes no
difference.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.chaos import children, faults
from tests.chaos.commands import commands
from tests.chaos.damage import damage, resumed
from tests.chaos.inputs import inputs
from tests.chaos.kills import kills, together, undisturbed
from tests.chaos.lanes import Job, run_all

ATTACKS = {"kills": kills, "together": together, "failing": faults.failing, "full": faults.full}
PARTS = (*ATTACKS, "damage", "inputs")
# At full scale, of each command; kills are the commands' own.
COUNTS = {"failing": 40, "full": 12, "together": 4}
DAMAGES, RESUMED, INPUTS = 1000, 60, 20_000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts")
    # One more than processors: a part that waits for a moment to kill at leaves its own idle.
    lanes = (os.cpu_count() or 1) + 1
    parser.add_argument("--lanes", type=int, default=lanes, help="parts at once")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--command", nargs="+", metavar="NAME", help="default: all six")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        _begin_anew(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        children.adopt()
        _imports()
        return _all(folder, given)


def _begin_anew(folder: Path) -> None:
    """Starts this process again under the library that fails calls, with one thread."""
    if "CHAOS_FOLDER" in os.environ:
        return
    library = faults.shim(folder)
    if library is None:
        print("no C compiler: calls that fail are left out", file=sys.stderr)
        return
    environment = {
        **os.environ, "LD_PRELOAD": str(library), "CHAOS_FOLDER": str(folder),
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
    }  # fmt: skip
    child = os.posix_spawn(
        sys.executable, [sys.executable, "-m", "tests.chaos", *sys.argv[1:]], environment
    )
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except KeyboardInterrupt:
        code = 130
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    sys.exit(code)


def _imports() -> None:
    """What commands import, once: children are forked with it. One thread, so that they can be."""
    import torch

    for name in (
        "analysis.cli", "analysis.comparing.race", "analysis.demo", "analysis.reporting.report",
        "rl.agents.learn", "sparse_train.trainer",
    ):  # fmt: skip
        importlib.import_module(name)
    torch.set_num_threads(1)


def _all(folder: Path, given: argparse.Namespace) -> int:
    counts, broken = run_all(_jobs(folder, given), given.lanes, given.seed, folder)
    for what, count in sorted(counts.items()):
        print(f"{count:7d}  {what}")
    wrong = len(broken) + sum("BROKEN" in what for what in counts)
    print(f"{counts.total()} outcomes, {wrong or 'nothing'} BROKEN", *broken, sep="\n")
    return 1 if wrong else 0


def _jobs(folder: Path, given: argparse.Namespace) -> list[Job]:
    """What was asked for; the longest first, so that no lane is left with it at the end."""

    def add(name: str, after: str, count: int, do: Callable[..., None]) -> None:
        place, count = folder / name.replace(" ", "-"), max(1, round(count * given.scale))
        place.mkdir()
        jobs.append(Job(name, lambda rng, counts, w: do(w, place, rng, count, counts), after))

    whole, jobs = [], []
    for command in commands(folder):
        name = command.name
        asked = given.command is None or name in given.command
        attacks = [part for part in ATTACKS if part in given.only and asked]
        if "LD_PRELOAD" not in os.environ:
            attacks = [part for part in attacks if part != "failing"]
        damaged = command.damaged and "damage" in given.only
        if attacks or damaged:
            place = folder / name.replace(" ", "-")
            whole.append(Job(name, lambda _rng, _counts, _w, c=command, p=place: undisturbed(c, p)))
        for part in attacks:
            count = command.kills if part == "kills" else COUNTS[part]
            add(f"{part} of {name}", name, count, partial(ATTACKS[part], command))
        if damaged:
            add(f"damage to {name}", name, DAMAGES, partial(damage, command))
            if name == "train":
                add("damage to train, resumed", name, RESUMED, partial(resumed, command))
    if "inputs" in given.only:
        place, count = folder / "inputs", max(1, round(INPUTS * given.scale))
        place.mkdir()
        jobs.append(Job("inputs", lambda rng, counts, _: inputs(rng, place, count, counts)))
    return [*whole, *jobs]


if __name__ == "__main__":
    sys.exit(main())
