"""`make mutation`: small faults planted in the modules that decide a price; do the tests notice?

    python -m tests.mutation [hwsim/net_time.py ...] [--again]

mutmut writes the faulty forms of each function into a copy of the tree (build/mutation). For each
form the collected tests that reach its function are run in a process of its own: those that noticed
another form first, then the quickest, up to the first that fails. The page docs/mutation.md gets
the counts and every form that no test noticed; what was said there about a survivor is kept. Ends
with 1 where fewer than nine in ten are noticed, or where a survivor stands without a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.mutation.page import UNJUDGED, Module, Survivor, read, write
from tests.mutation.planted import plant

TREE, PAGE = Path("build/mutation"), Path("docs/mutation.md")
COPIED = ("hwsim", "sparse_train", "rl", "analysis", "nettime", "tests", "docs", "examples",
          "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md")  # fmt: skip
ENOUGH = 0.9
# Where the behaviour of each module is tested; of these, those that reach a function are run.
TESTS = {
    "hwsim/workload.py": ("tests/hwsim/test_ops.py", "tests/hwsim/test_workload_words.py"),
    "hwsim/net_time.py": ("tests/hwsim/test_net_time.py",),
    "sparse_train/workload.py": (
        "tests/sparse_train/test_workload.py", "tests/sparse_train/test_workload_care.py",
        "tests/sparse_train/test_workload_options.py", "tests/sparse_train/test_workload_ways.py",
        "tests/sparse_train/test_observed_steps.py", "tests/sparse_train/test_recurrent_steps.py",
        "tests/sparse_train/test_repeated_blocks.py",
    ),
    "sparse_train/narrower.py": ("tests/sparse_train/test_narrower.py",),
    "sparse_train/schedules.py": ("tests/sparse_train/test_schedules.py",),
    "rl/rewards": ("tests/rl/test_rewards.py",),
    "analysis/estimating/pricing.py": ("tests/analysis/estimating/test_pricing.py",),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--again", action="store_true", help="those alone that survived last time")
    given = parser.parse_args()
    wrong = [module for module in given.modules if module not in TESTS]
    if wrong:
        parser.error(f"MODULE: value is {wrong[0]}; allowed are {', '.join(TESTS)}")
    _copy()
    known = read(PAGE)
    judged = dict(known)
    for name in given.modules or TESTS:
        judged[name] = _run(name, known.get(name), given.again)
        print(f"{name}: {judged[name].killed} of {judged[name].mutants} noticed", flush=True)
        write(PAGE, judged)
    found = {name: judged[name] for name in given.modules or TESTS}
    short = [name for name, module in found.items() if module.killed < ENOUGH * module.mutants]
    open_ = [s for module in found.values() for s in module.survivors if s.reason == UNJUDGED]
    print(f"{PAGE} is written; below {ENOUGH:.0%}: {', '.join(short) or 'none'}; "
          f"survivors without a reason: {len(open_)}")  # fmt: skip
    return 1 if short or open_ else 0


def _copy() -> None:
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    for name in COPIED:
        source = Path(name)
        if source.is_dir():
            shutil.copytree(source, TREE / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, TREE / name)


def _run(name: str, known: Module | None, again: bool) -> Module:
    """Plants in the files of `name`, runs the tests on each form, tells what survived."""
    source = Path(name)
    files = sorted(source.glob("*.py")) if source.is_dir() else [source]
    forms = {form.name: form for file in files for form in plant(file, TREE / file)}
    alive_before = {s.fault for s in known.survivors} if known and again else None
    wanted = [n for n, f in forms.items() if alive_before is None or f.fault in alive_before]
    result = (TREE / "result.json").resolve()
    result.unlink(missing_ok=True)
    # A thread each: forms are run one after the other, in forks.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MUTANT_UNDER_TEST": ""}
    command = [sys.executable, "-m", "tests.mutation.session", str(result), *TESTS[name]]
    subprocess.run(command, cwd=TREE, env=environment, input="\n".join(wanted), text=True)
    for file in files:  # the next module's tests run on this one as it was written
        shutil.copy(file, TREE / file)
    if not result.exists():
        sys.exit(f"{name}: its tests did not run on the code as it is; see above")
    codes = json.loads(result.read_text())
    alive = [Survivor(*forms[form].fault) for form, code in codes.items() if code == 0]
    return Module(len(forms), len(forms) - len(alive), tuple(alive)).with_reasons(known)


if __name__ == "__main__":
    raise SystemExit(main())
