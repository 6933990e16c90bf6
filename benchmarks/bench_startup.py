"""How long people wait for a first answer: `python benchmarks/bench_startup.py [--rounds N]`.

Processor seconds, wall seconds (medians) and peak memory of whole processes, and their ratio to
`python -c "import torch"` in the same round. Cold: no step of a model kept and nothing compiled by
Numba; traced: no step kept; warm: as a second call finds it. Goals, in imports of torch: warm 2,
cold 4; `nettime --help` under 0.3 s.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

ESTIMATE = ("-m", "nettime", "estimate", "bert-base")
THREE = (*ESTIMATE, "--density", "0.1", "-d", "ideal", "-d", "wafer", "-d", "zen3")


def _run(arguments: tuple[str, ...], env: Mapping[str, str]) -> tuple[float, float]:
    """Processor and wall seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **env}, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, wall


def _peak(arguments: tuple[str, ...], env: Mapping[str, str]) -> float:
    """Largest resident set of one process, in MB, as it reports itself."""
    code = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_module('nettime', run_name='__main__', alter_sys=False)\n"
        "except SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments[1:]], env={**os.environ, **env}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stderr.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = max(1, parser.parse_args().rounds)
    warm = tempfile.mkdtemp(prefix="nettime-warm-")
    kept = {"NETTIME_CACHE": warm}
    for command in (ESTIMATE, THREE):
        _run(command, kept)

    def fresh(compiled: bool) -> dict[str, str]:
        env = {"NETTIME_CACHE": tempfile.mkdtemp(prefix="nettime-cold-")}
        return env if compiled else {**env, "NUMBA_CACHE_DIR": env["NETTIME_CACHE"]}

    cases = {
        "import torch": (("-c", "import torch"), dict),
        "nettime --help": (("-m", "nettime", "--help"), dict),
        "estimate, warm": (ESTIMATE, lambda: kept),
        "estimate, traced": (ESTIMATE, lambda: fresh(True)),
        "estimate, cold": (ESTIMATE, lambda: fresh(False)),
        "three devices, warm": (THREE, lambda: kept),
        "three devices, cold": (THREE, lambda: fresh(False)),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (arguments, env) in cases.items():
            times[name].append(_run(arguments, env()))
    print(f"{'':<22}{'cpu s':>8}{'wall s':>8}{'/ torch':>9}{'peak MB':>9}")
    for name, (arguments, env) in cases.items():
        cpu = statistics.median(one[0] for one in times[name])
        wall = statistics.median(one[1] for one in times[name])
        ratio = statistics.median(
            one[0] / torch[0] for one, torch in zip(times[name], times["import torch"], strict=True)
        )
        peak = f"{_peak(arguments, env()):9.0f}" if arguments[0] == "-m" else " " * 9
        print(f"{name:<22}{cpu:>8.2f}{wall:>8.2f}{ratio:>9.2f}{peak}")


if __name__ == "__main__":
    main()
