"""hwsim ← sparse_train ← rl ← analysis, no circles, no private door: held by reading imports."""

import ast
from functools import cache
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
MOST_FILES = 20  # of a folder that is not scanned for members
SCANNED = {
    "analysis/commands", "hwsim/devices", "hwsim/kernels/cpu/linear", "hwsim/kernels/gpu",
    "hwsim/patterns", "rl/algorithms", "rl/baselines", "rl/rewards", "rl/rollouts",
    "hwsim/cluster/data_parallel", "sparse_train/algorithms", "sparse_train/models",
    "sparse_train/networks", "sparse_train/patterns", "sparse_train/tasks",
}  # fmt: skip


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(f): f for f in FILES}


def folder_of(module: str) -> Path:
    return MODULES[module].parent


@cache
def imported(module: str) -> frozenset[tuple[str, str]]:
    """(module, name) of every import of ours, lazy ones too; the name is "" for a whole module."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: imports are absolute here"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add((whole, "") if whole in MODULES else (node.module, alias.name))
    return frozenset(found)


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Circles, each from the module that it was found at back to itself."""
    found, done = [], set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
        elif module not in done:
            for other in sorted(arrows.get(module, ())):
                walk(other, [*way, module])
            done.add(module)

    for module in sorted(arrows):
        walk(module, [])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_package_imports_only_what_lies_below_it(file):
    package = file.relative_to(ROOT).parts[0]
    found = {module.split(".")[0] for module, _ in imported(module_of(file))}
    above = (found & set(PACKAGES)) - ALLOWED[package] - {package}
    assert not above, f"{file.name} imports {above}"
    if package == "hwsim" and not file.is_relative_to(ROOT / "hwsim" / "kernels" / "gpu"):
        assert not found & {"torch", "triton"}, f"{file.name} imports torch or triton"


def test_no_circles_even_behind_lazy_imports():
    arrows = {
        module: {other for other, _ in imported(module) if other in MODULES and other != module}
        for module in MODULES
    }
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]
    assert not circles(arrows), circles(arrows)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_what_other_folders_import_has_no_underscore(file):
    module, private = module_of(file), []
    for other, name in imported(module):
        if other not in MODULES or other == module:
            continue
        hidden = any(part.startswith("_") for part in other.split("."))
        if (hidden and folder_of(other) != folder_of(module)) or (
            name.startswith("_") and not name.startswith("__")
        ):
            private.append(f"{other} {name}".strip())
    assert not private, f"{module} imports {private}"


def test_no_folder_is_a_heap():
    folders = {f.parent for f in FILES}
    crowded = {
        str(folder.relative_to(ROOT))
        for folder in folders
        if len(list(folder.glob("*.py"))) > MOST_FILES
    }
    assert crowded <= SCANNED, crowded - SCANNED


def test_private_names_of_torch_are_used_in_one_module():
    """What torch does not document may move in any version."""
    home = "sparse_train.private_torch"
    found = []
    for module, file in MODULES.items():
        if module == home:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
                names = [*str(node.module).split(".")[1:], *(a.name for a in node.names)]
            elif isinstance(node, ast.Attribute):
                parts, inner = [node.attr], node.value
                while isinstance(inner, ast.Attribute):
                    parts, inner = [*parts, inner.attr], inner.value
                if isinstance(inner, ast.Name) and inner.id == "torch":
                    names = parts
            private = [n for n in names if n.startswith("_") and not n.startswith("__")]
            if private and private != ["_cslt_sparse_mm_search"]:  # of a kernel, which needs it
                found.append(f"{module}: {private}")
    assert found == []
