"""hwsim ← sparse_train ← rl ← analysis: held by reading the imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("hwsim", "sparse_train", "rl", "analysis")
ALLOWED = {
    "hwsim": set(),
    "sparse_train": {"hwsim"},
    "rl": {"hwsim", "sparse_train"},
    "analysis": {"hwsim", "sparse_train", "rl"},
}
FILES = [f for p in PACKAGES for f in sorted((ROOT / p).rglob("*.py"))]


def imported(tree: ast.AST) -> set[str]:
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_package_imports_only_what_lies_below_it(file):
    package = file.relative_to(ROOT).parts[0]
    found = imported(ast.parse(file.read_text()))
    above = (found & set(PACKAGES)) - ALLOWED[package] - {package}
    assert not above, f"{file.name} imports {above}"
    if package == "hwsim" and "gpu" not in file.parts:
        assert not found & {"torch", "triton"}, f"{file.name} imports torch or triton"
