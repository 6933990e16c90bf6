"""The Python on the pages of docs runs as pasted, with what the text around it takes for given."""

import re
import textwrap
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page, language="python"):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(code, **given):
    """The names that a block leaves, run as a file of its own."""
    space = {"__name__": "page", **given}
    exec(compile(textwrap.dedent(code), "page", "exec"), space)
    return space


def test_every_page_with_python_is_here():
    found = {file.stem for file in DOCS.glob("*.md") if blocks(file.stem)}
    assert found == {
        "algorithms", "clusters", "commands", "devices", "environment", "loops",
        "stable-baselines", "testing-your-algorithm",
    }  # fmt: skip


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    from sparse_train import trainer
    from sparse_train.runs.config import TrainConfig

    config = TrainConfig.from_json({
        "task": "images", "task_options": {"data": "digits"}, "model": "mlp", "preset": "small",
        "algorithm": "rigl", "density": 0.5, "steps": 4, "batch_size": 8, "eval_interval": 2,
        "update_interval": 2, "warmup_steps": 1, "threads": 1,
    })  # fmt: skip
    folder = tmp_path_factory.mktemp("page") / "runs" / "one"
    trainer.train(config, folder)
    return folder


def test_algorithms_reads_runs_as_a_frame(tiny_run, monkeypatch):
    monkeypatch.chdir(tiny_run.parents[1])
    (code,) = blocks("algorithms")
    made = run(code)
    assert made["best"]["algorithm"].to_list() == ["rigl"] and len(made["by_algorithm"]) == 1


def test_clusters_prices_a_recorded_run(tiny_run):
    code, _ = blocks("clusters")
    seconds = run(code)["seconds_on_a_cluster"]
    assert 0 < seconds(tiny_run) < float("inf")


def test_clusters_builds_a_model_without_values():
    class MyDecoder(torch.nn.Module):
        def __init__(self, layers, width):
            super().__init__()
            self.parts = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))

    _, code = blocks("clusters")
    model, batch = run(code, MyDecoder=MyDecoder, torch=torch)["make"]()
    assert all(p.is_meta for p in model.parameters()) and batch.shape == (1, 4096)


def test_commands_makes_a_model_that_estimate_takes(tmp_path, monkeypatch):
    from analysis.estimating.subject import user_made

    (code,) = blocks("commands")
    (tmp_path / "of_the_page.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert user_made("of_the_page.py:make_model").weights == 784 * 300 + 300 + 300 * 10 + 10


def test_devices_says_what_simulators_say(tmp_path, monkeypatch, capsys):
    references, tpu = blocks("devices")
    asked = re.sub(
        r"^(array|unit)(.*)\.cycles  # (\d+).*$", r"assert \1\2.cycles == \3", references,
        flags=re.MULTILINE,
    )  # fmt: skip
    assert asked.count("assert ") == 2
    run(asked)
    (file,) = blocks("devices", "toml")
    (tmp_path / "tpu-v1.toml").write_text(file)
    monkeypatch.chdir(tmp_path)
    run(tpu)
    assert capsys.readouterr().out == "compute\n"


@pytest.mark.slow
def test_environment_plays_an_episode(capsys):
    (code,) = blocks("environment")
    run(code)
    assert float(capsys.readouterr().out) > 0


def test_loops_prunes_and_exports(tmp_path, monkeypatch, capsys):
    from sparse_train import sparsify

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    given = sparsify(model, optimizer, algorithm="static", density=0.2, total_steps=10)
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    (code,) = blocks("loops")
    monkeypatch.chdir(tmp_path)
    run(code, sparsifier=given, batch=torch.randn(3, 8), torch=torch)
    assert (tmp_path / "small.pt2").is_file() and (tmp_path / "small.onnx").is_file()
    assert "parameters" in capsys.readouterr().out


@pytest.mark.slow
def test_stable_baselines_learns():
    pytest.importorskip("stable_baselines3")
    (code,) = blocks("stable-baselines")
    run(code.replace("agent.learn(1024)", "agent.learn(64)"))


def test_testing_your_algorithm_finds_the_slip(tmp_path, monkeypatch):
    explorer, slip = blocks("testing-your-algorithm")
    made = run(explorer)
    with pytest.raises(AssertionError):
        run(slip, **{k: made[k] for k in ("Explorer", "np")})
