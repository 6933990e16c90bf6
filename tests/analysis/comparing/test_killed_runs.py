"""A comparison whose worker was killed while it ended a run goes on, and leaves nothing behind."""

import pytest

from analysis.comparing.measured import step_seconds
from analysis.comparing.plan import Entry, Job
from analysis.comparing.runs import measure
from sparse_train.record import TrainingRecord
from sparse_train.runs import run_folder
from sparse_train.runs.config import TrainConfig
from sparse_train.tasks import make_task
from sparse_train.trainer import train

CONFIG = TrainConfig(
    task="images", model_options={}, algorithm="rigl", density=0.2, update_interval=2, steps=6,
    batch_size=16, threads=1, eval_interval=6, warmup_steps=1, checkpoint_interval=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def digest():
    return make_task(CONFIG.task, CONFIG.task_options).prepare().digest


def measured(folder, digest):
    entry = Entry("RigL 20 %", "rigl", "RigL", 0.2, "rigl-0.2", {})
    return measure(Job(entry, CONFIG, folder, digest, ("ideal",)), lambda done, note: None)


@pytest.mark.parametrize("lost", ["write_weights", "write_checkpoint"])
def test_a_run_killed_between_its_last_two_files_is_ended_again(
    tmp_path, digest, monkeypatch, lost
):
    """Each that can be the last one: none of them alone makes a run complete."""

    class Killed(BaseException):
        pass

    write = getattr(run_folder, lost)

    def killed(folder, state, *rest):
        if lost == "write_weights" or state["step"] == CONFIG.steps:
            raise Killed
        write(folder, state, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run_folder, lost, killed)
        train(CONFIG, tmp_path / "run")
    assert not TrainingRecord.load(tmp_path / "run").complete
    figures = measured(tmp_path / "run", digest)
    assert figures.updates == 1 and figures.test == {}
    assert len(step_seconds([tmp_path / "run"], rounds=1)) == 1


def test_what_a_killed_writer_left_in_a_complete_run_goes(tmp_path, digest):
    whole = train(CONFIG, tmp_path / "run").folder
    (whole / ".manifest.json.1.abc.part").write_text("half")
    (whole / "masks" / ".v0000.safetensors.1.abc.part").write_text("half")
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*.*") if not p.name.startswith(".")}
    measured(whole, digest)
    assert not [p.name for p in whole.rglob("*.part")]
    assert {p: p.stat().st_mtime_ns for p in before} == before
