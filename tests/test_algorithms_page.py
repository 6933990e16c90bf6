"""docs/algorithms.md names every algorithm, option and pattern that there is."""

import dataclasses
import re
from pathlib import Path

from hwsim.patterns import PATTERNS
from sparse_train.registries import ALGORITHMS

PAGE = (Path(__file__).parent.parent / "docs" / "algorithms.md").read_text(encoding="utf-8")
ROWS = {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` \|.*$", PAGE, re.MULTILINE)}


def test_every_algorithm_has_a_row_with_its_options():
    shared = {f.name for f in dataclasses.fields(ALGORITHMS.get("set"))}
    for name in ALGORITHMS.names():
        kind = ALGORITHMS.get(name)
        options = {f.name for f in dataclasses.fields(kind)}
        named = set(re.findall(r"`(\w+)`", ROWS[name])) - {name}
        if "as `set`" in ROWS[name]:
            named = (named - {"set"}) | shared
        assert options <= named, (name, options - named)
        told = {"never": "never", "update": "at updates", "always": "always"}[kind.gradient]
        assert f"| {told} |" in ROWS[name], name


def test_every_pattern_has_a_row_whose_option_is_one():
    for name in PATTERNS.names():
        assert name in ROWS, name
