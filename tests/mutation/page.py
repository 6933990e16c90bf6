"""docs/mutation.md: counts by module, and every fault that no test notices, with why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

UNJUDGED = "not yet judged"
_HEAD = """# What the tests would not notice

`make mutation` plants small faults, one at a time, in the modules that decide a price, and runs the
tests that reach the faulty function. Written by it; the reasons are by hand.

"""


@dataclass(frozen=True)
class Survivor:
    function: str
    before: str
    after: str
    reason: str = UNJUDGED

    @property
    def fault(self) -> tuple[str, str, str]:
        return self.function, self.before, self.after


@dataclass(frozen=True)
class Module:
    mutants: int
    killed: int
    survivors: tuple[Survivor, ...]

    def with_reasons(self, known: Module | None) -> Module:
        """What is said of a survivor stays while the fault and the line do."""
        said = {s.fault: s.reason for s in known.survivors} if known else {}
        survivors = tuple(replace(s, reason=said.get(s.fault, UNJUDGED)) for s in self.survivors)
        return replace(self, survivors=survivors)


def write(page: Path, modules: Mapping[str, Module]) -> None:
    lines = [_HEAD + "| module | faults | noticed | |", "|---|---|---|---|"]
    for name, m in modules.items():
        lines.append(f"| {name} | {m.mutants} | {m.killed} | {m.killed / m.mutants:.1%} |")
    for name, module in modules.items():
        if not module.survivors:
            continue
        lines += ["", f"## {name}", "", "| function | written | fault | why none notices |"]
        lines.append("|---|---|---|---|")
        for s in module.survivors:
            cells = (f"`{s.function}`", _code(s.before), _code(s.after), s.reason)
            lines.append("| " + " | ".join(cells) + " |")
    page.write_text("\n".join(lines) + "\n")


def read(page: Path) -> dict[str, Module]:
    """What `write` wrote; nothing where the page is not there."""
    if not page.exists():
        return {}
    counts: dict[str, tuple[int, int]] = {}
    survivors: dict[str, list[Survivor]] = {}
    section = None
    for line in page.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        if not line.startswith("| ") or line.startswith(("| module", "| function")):
            continue
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        cells = [cell.strip() for cell in cells]
        if section is None:
            counts[cells[0]] = (int(cells[1]), int(cells[2]))
        else:
            function, before, after, reason = cells
            one = Survivor(function.strip("`"), _plain(before), _plain(after), reason)
            survivors.setdefault(section, []).append(one)
    return {name: Module(*both, tuple(survivors.get(name, ()))) for name, both in counts.items()}


def _code(text: str) -> str:
    return "`` " + text.replace("|", r"\|") + " ``"


def _plain(cell: str) -> str:
    return cell.removeprefix("`` ").removesuffix(" ``").replace(r"\|", "|")
