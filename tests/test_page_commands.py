"""Every `nettime …` on the README and the pages of docs runs, made short by options after it."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from analysis.cli import run
from tests.made_up_records import write_products

ROOT = Path(__file__).parent.parent
PAGES = sorted(["README", *(f"docs/{file.stem}" for file in (ROOT / "docs").glob("*.md"))])

_SHORT = ["--batch-size", "4", "--steps", "4"]
_SHORT += [f"--set={name}=2" for name in ("update_interval", "eval_interval", "warmup_steps")]
_AGENT = ["--slots", "2", "--set", "iterations=1", "--set", "steps=2"]
_FEW = ["--seeds", "1", "--episodes", "1"]
_ONE = ["--env", "whitebox", "--tune-episodes", "2", "--opponent", "dense", "--no-blind"]
_MOVES = ["--batch-size", "4", "--update-interval", "1"]
# What makes a command short. The last of two equal options counts.
SCALED = {
    "agent compare": [*_AGENT, *_FEW, *_ONE],
    "agent dsrl": [*_AGENT, *_FEW, "--no-tune"],
    "agent eval": ["--episodes", "2"],
    "agent schedules": ["--quick", "--processes", "1"],
    "agent train": _AGENT,
    "compare": ["--quick", "--steps", "4", "--evaluations", "2", *_MOVES, "--no-narrower"],
    "demo": ["--quick"],
    "estimate": ["--batch-size", "1", "--sequence-length", "16"],
    "train": _SHORT,
    "wide": ["--outputs", "2000", "--steps", "8"],
}
# Nothing to be scaled; `measure gpu` says in one line that there is no GPU where there is none.
WHOLE = ("calibrate gpu", "crosscheck", "devices", "measure gpu", "plan", "report")


def commands(page):
    """The commands of a page, as lists of words, a line that ends with a backslash joined."""
    text = (ROOT / f"{page}.md").read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"```python.*?```", "", text, flags=re.DOTALL)
    lines = re.findall(r"^(?:    )?(?:\.venv/bin/)?nettime ([^\n]*)", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def kind(words):
    """The command of these words: one or two of them."""
    return next(k for k in (" ".join(words[:2]), words[0]) if k in SCALED or k in WHOLE)


def scaled(words):
    """A command with the options that make it short."""
    if words[:2] == ["agent", "dsrl"]:
        family = "seq2seq" if "translation" in words else "text_classifier"
        words = [*words, "--network", f"{family}-1x8", "--test-network", f"{family}-1x12"]
    if "--resnet" in words:
        words = [*words, '--set=model_options={"width_factor": 0.05}', "--density", "0.5"]
        words += ["--seeds", "1", "--network", "mlp-1x8"]
    return [*words, *SCALED.get(kind(words), [])]


def test_every_command_is_known_here():
    found = [kind(words) for page in PAGES for words in commands(page)]
    assert len(found) > 50 and set(SCALED) | set(WHOLE) == set(found)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what the pages take for given: a model, a device, two languages, records."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    model = (
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Linear(64, 8)),"
        " torch.ones(4, 32)\n"
        "make_model = make\n"
    )
    for name in ("my_module", "my_model"):
        (tmp_path / f"{name}.py").write_text(model)
    for name in ("my", "tpu-v1"):
        shutil.copy(
            ROOT / "hwsim" / "devices" / "specs" / "tpu-like.toml", tmp_path / f"{name}.toml"
        )
    write_products(tmp_path / "h200.jsonl", "h200")
    pairs = [
        (f"the {a} {b} number {i}", f"le {b} {a} nombre {i}")
        for i in range(40)
        for a in ("red", "green", "blue")
        for b in ("door", "tree")
    ]
    for language, side in (("en", 0), ("fr", 1)):
        lines = "".join(f"{pair[side]}\n" for pair in pairs)
        (tmp_path / f"corpus.{language}").write_text(lines)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_page_run(page, desk, capsys):
    for words in commands(page):
        code = run(scaled(words))
        said = capsys.readouterr()
        if kind(words) == "measure gpu" and not torch.cuda.is_available():
            assert code == 2 and said.err.count("\n") == 1 and "GPU" in said.err
            continue
        if "hf:gpt2" in words and importlib.util.find_spec("transformers") is None:
            assert code == 2 and said.err.count("\n") == 1 and "nettime[hf]" in said.err
            continue
        assert code == 0, f"nettime {shlex.join(words)}: {said.err}"
        assert said.out, words
