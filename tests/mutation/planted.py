"""The faulty forms of a file's functions, and how each differs from what was written."""

import ast
import difflib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Form:
    name: str  # as mutmut calls it, with its module
    function: str
    before: str
    after: str

    @property
    def fault(self) -> tuple[str, str, str]:
        return self.function, self.before, self.after


def plant(source: Path, target: Path) -> list[Form]:
    """Writes `source` with all its faulty forms to `target`; which one runs is chosen by name."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    mutated = mutate_file_contents(str(source), source.read_text())
    target.write_text(mutated.code)
    module = str(source.with_suffix("")).replace("/", ".").removesuffix(".__init__")
    texts = _functions(mutated.code)
    return [_form(f"{module}.{name}", texts) for name in mutated.mutant_names]


def _functions(code: str) -> dict[str, list[str]]:
    lines = code.splitlines()
    return {
        node.name: lines[node.lineno - 1 : node.end_lineno]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef)
    }


def _form(name: str, texts: dict[str, list[str]]) -> Form:
    own = name.rpartition(".")[2]
    base = own.partition("__mutmut_")[0]
    function = base.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    plain = function.rpartition(".")[2]
    original, faulty = (
        [line.replace(full, plain) for line in texts[full]]
        for full in (f"{base}__mutmut_orig", own)
    )
    sides = {"-": [], "+": []}
    for line in difflib.unified_diff(original, faulty, n=0, lineterm=""):
        if line[0] in sides and line[:3] not in ("---", "+++"):
            sides[line[0]].append(" ".join(line[1:].split()))
    return Form(name, function, " ".join(sides["-"]), " ".join(sides["+"]))
