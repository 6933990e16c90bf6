"""One collected session of pytest, run again in a fork for each faulty form.

python -m tests.mutation.session RESULT TEST_FILE... < names
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import pytest

LIMIT_S = 60  # of one test; a form that hangs is noticed


class Forms:
    def __init__(self, names: list[str], result: Path):
        self.names, self.result = names, result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session) -> bool:
        began = time.monotonic()
        seen = self.result.with_suffix(".seen")
        code = _child(partial(_look, session, session.items, seen))
        if code:
            print(f"the tests fail on the code as it is (code {code})", file=sys.stderr)
            return True
        seconds, reached = json.loads(seen.read_text())
        items = sorted(session.items, key=lambda item: seconds[item.nodeid])
        codes, killer, killers = {}, self.result.with_suffix(".killer"), {}
        for done, name in enumerate(self.names):
            function = name.partition("__mutmut_")[0]
            mine = killers.setdefault(function, {})
            chosen = [item for item in items if function in reached[item.nodeid]]
            # What noticed others of the function comes first: the last of them before all.
            chosen.sort(key=lambda item, mine=mine: -mine.get(item.nodeid, -1))
            codes[name] = _child(partial(_fails, session, chosen, name, killer)) if chosen else 0
            if codes[name] == 1:
                mine[killer.read_text()] = done
            if done % 25 == 24:
                minutes = (time.monotonic() - began) / 60
                alive = sum(code == 0 for code in codes.values())
                print(f"{done + 1} of {len(self.names)}, {alive} alive, {minutes:.1f} min",
                      file=sys.stderr, flush=True)  # fmt: skip
        self.result.write_text(json.dumps(codes))
        return True


def _child(work) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 3
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _look(session, items, seen: Path) -> int:
    """Seconds of each test on the code as it is, and the functions that it reaches."""
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.state import state

    set_mutant_under_test("stats")
    seconds, reached = {}, {}
    for item, after in zip(items, [*items[1:], None], strict=True):
        state()._stats.clear()
        began = time.process_time()
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        seconds[item.nodeid] = time.process_time() - began
        reached[item.nodeid] = sorted(state()._stats)
    seen.write_text(json.dumps([seconds, reached]))
    return session.testsfailed


def _fails(session, items, name: str, killer: Path) -> int:
    from mutmut.mutation.trampoline import set_mutant_under_test

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    set_mutant_under_test(name)
    for item, after in zip(items, [*items[1:], None], strict=True):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.testsfailed:
            killer.write_text(item.nodeid)
            return 1
    return 0


if __name__ == "__main__":
    result, *files = sys.argv[1:]
    forms = Forms(sys.stdin.read().split(), Path(result))
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", f"timeout={LIMIT_S}"]
    pytest.main([*options, "-m", "not slow", *files], plugins=[forms])
