"""`make chaos`: kills, failing disks, damage and hostile inputs by the thousand, counted by kind.

    python -m tests.chaos [--scale 0.1] [--only kills] [--command train] [--seed 1]

Seeded and bounded: about an hour at full scale on two idle cores. Only child processes of its own
are killed. An invariant decides, not an example: a command ends with 0, or with 2 and one line;
what goes on after a kill or a fault ends, to the bit, like a run that nothing disturbed; what a
reader would see is whole; what is damaged is refused by name or makes no difference.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos import children, faults
from tests.chaos.commands import Command, commands
from tests.chaos.damage import damage, resumed
from tests.chaos.inputs import inputs
from tests.chaos.kills import Whole, kills, together, undisturbed

PARTS = ("kills", "together", "failing", "full", "damage", "inputs")
# At full scale, of each command; kills are the commands' own.
FAILING, FULL, TOGETHER = 40, 12, 4
DAMAGES, RESUMED, INPUTS = 2000, 60, 20_000
LIMIT_S = 1800.0  # of all damages


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts")
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
    rng, counts, broken = random.Random(given.seed), Counter(), []

    def attempt(what: str, part: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            part()
        except children.Broken as error:
            broken.append(f"{what}: {error}")
            print(f"BROKEN {what}: {error}", file=sys.stderr, flush=True)
        print(f"{time.monotonic() - began:7.0f} s  {what}", flush=True)

    def often(count: int) -> int:
        return max(1, round(count * given.scale))

    def attack(command: Command, place: Path) -> None:
        whole = undisturbed(command, place)
        print(f"{whole.took_s:7.1f} s  {command.name}, undisturbed", flush=True)
        wholes[command.name] = whole
        plan = {
            "kills": (kills, command.kills), "together": (together, TOGETHER),
            "failing": (faults.failing, FAILING), "full": (faults.full, FULL),
        }  # fmt: skip
        for part, (run, count) in plan.items():
            if part in given.only and (part != "failing" or "LD_PRELOAD" in os.environ):
                attempt(
                    f"{part} of {command.name}",
                    lambda run=run, n=count: run(command, whole, place, rng, often(n), counts),
                )

    wholes: dict[str, Whole] = {}
    for number, command in enumerate(commands(folder)):
        needed = command.name in ("train", "agent train") and "damage" in given.only
        asked = given.command is None or command.name in given.command
        if (asked and set(given.only) - {"damage", "inputs"}) or needed:
            place = folder / f"command{number}"
            attempt(command.name, lambda c=command, p=place: attack(c, p))
    if "damage" in given.only:
        for question, name, where, count in (
            (damage, "train", "run", DAMAGES // 2),
            (damage, "agent train", "agent", DAMAGES // 2), (resumed, "train", "run", RESUMED),
        ):  # fmt: skip
            if name in wholes:
                attempt(
                    f"{question.__name__}: {name}",
                    lambda q=question, w=wholes[name].folder / where, n=count: counts.update(
                        children.asked(
                            q, rng.randrange(2**32), w, folder, often(n), limit_s=LIMIT_S
                        )
                    ),
                )
    if "inputs" in given.only:
        attempt("inputs", lambda: inputs(rng, folder, often(INPUTS), counts))
    for what, count in sorted(counts.items()):
        print(f"{count:7d}  {what}")
    return 1 if broken or any("BROKEN" in what for what in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
