"""Examples and the snippets of the pages run as they stand."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.name)
def test_an_example_runs_and_prints(file, capsys):
    if "hugging_face" in file.name:
        pytest.importorskip("transformers", reason="the extra 'hf' is not installed")
    if "stable_baselines" in file.name:
        pytest.importorskip("stable_baselines3", reason="it is no extra of ours")
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda f: f.name)
def test_a_notebook_runs_from_top_to_bottom(file, capsys):
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    space = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), file.name, "exec"), space)
    printed = capsys.readouterr().out
    assert {"price": "times as fast as dense", "prove": "broken: "}[file.name[:5]] in printed


def test_the_readme_s_loop_runs_as_pasted(capsys):
    import torch

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert "sparsify" in code and "workload" in code

    class Model(torch.nn.Sequential):
        def forward(self, inputs):
            out = super().forward(inputs)
            return type("Output", (), {"loss": out.square().mean(), "out": out})

    model = Model(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    batches = [{"inputs": torch.randn(8, 16)} for _ in range(3)]
    space = {
        "model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1),
        "batches": batches, "batch": batches[0],
    }  # fmt: skip
    exec(compile(code, "README.md", "exec"), space)
    assert "estimate" in capsys.readouterr().out


def commands(page):
    """The lines of a page's indented blocks that call nettime."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^    (?:\.venv/bin/)?nettime ([^\n#]*)", text, flags=re.MULTILINE)
    return [line.strip() for line in lines if "…" not in line]


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_every_command_on_a_page_has_the_options_that_it_shows(page):
    from typer.main import get_command

    from analysis.cli import app

    root = get_command(app)
    found = commands(page)
    assert len(found) >= 5
    for line in found:
        words = line.split()
        command = root
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        used = {
            word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*.*", word)
        }
        assert used <= known | {"--help"}, f"{line}: {sorted(used - known)}"
