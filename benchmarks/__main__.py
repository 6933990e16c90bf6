"""`python -m benchmarks` runs every benchmark; `python -m benchmarks cache estimate` these two.

Each is a file `bench_NAME.py` that also runs alone. They share two cores with whatever else runs,
so compare ratios within one run; absolute times need an idle machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hwsim.errors import unknown

FOLDER = Path(__file__).parent


def main(wanted: list[str]) -> int:
    """Runs them one after the other; 1 if one failed, 2 for an unknown name."""
    names = sorted(f.stem.removeprefix("bench_") for f in FOLDER.glob("bench_*.py"))
    for name in wanted:
        if name not in names:
            print(f"benchmarks: error: {unknown('benchmark', name, names)}", file=sys.stderr)
            return 2
    failed = 0
    for name in wanted or names:
        print(f"\n── {name} ──", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], cwd=FOLDER.parent)
        failed = failed or int(done.returncode != 0)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
