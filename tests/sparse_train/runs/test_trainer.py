"""Training runs: what is recorded, and what is refused."""

from __future__ import annotations

import json
import os

import pytest
import torch
from _tiny_run import tiny
from safetensors.torch import load_file

from hwsim.errors import InputError
from sparse_train.record import TrainingRecord
from sparse_train.runs import run_folder
from sparse_train.runs.config import TrainConfig
from sparse_train.runs.run import Diverged
from sparse_train.tasks.mlm import PreparedText
from sparse_train.trainer import train


def losses(record):
    return record.training["loss"].to_list() + record.evaluations["loss"].to_list()


def test_same_config_gives_the_same_run_and_another_seed_another(text_folder, tmp_path):
    one, two = (train(tiny(text_folder, steps=6), tmp_path / name) for name in "ab")
    other = train(tiny(text_folder, steps=6, seed=1), tmp_path / "c")
    assert losses(one) == losses(two)
    assert losses(one) != losses(other)
    assert one.masks(-1) == two.masks(-1)
    assert one.masks(0) != other.masks(0)


def test_evaluating_more_often_changes_nothing_but_the_rows(text_folder, tmp_path):
    often = train(tiny(text_folder, steps=6, eval_interval=1), tmp_path / "a")
    seldom = train(tiny(text_folder, steps=6, eval_interval=6), tmp_path / "b")
    assert often.training["loss"].to_list() == seldom.training["loss"].to_list()
    assert often.evaluations["step"].to_list() == list(range(7))
    assert seldom.evaluations["step"].to_list() == [0, 6]


def test_training_never_touches_the_test_split(text_folder, tmp_path, monkeypatch):
    asked = []
    stream = PreparedText._stream
    monkeypatch.setattr(
        PreparedText, "_stream", lambda self, split: asked.append(split) or stream(self, split)
    )
    train(tiny(text_folder, steps=3), tmp_path / "run")
    assert set(asked) == {"train", "validation"}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_lowers_the_loss(text_folder, tmp_path, optimizer):
    rate = {"adamw": 1e-2, "sgd": 0.3}[optimizer]
    config = tiny(text_folder, optimizer=optimizer, learning_rate=rate, steps=60, batch_size=16)
    found = train(config, tmp_path / "run").evaluations["loss"].to_list()
    assert found[-1] < found[0] - 0.5


def test_weights_are_zero_outside_the_last_masks(text_folder, tmp_path):
    record = train(tiny(text_folder), tmp_path / "run")
    weights = load_file(record.folder / "weights.safetensors")
    for name, mask in record.masks(-1).items():
        inactive = weights[f"{name}.weight"].numpy()[~mask.array]
        assert (inactive == 0).all()


def test_what_is_recorded_says_what_the_run_was(text_folder, tmp_path):
    config = tiny(text_folder, steps=3)
    record = train(config, tmp_path / "run")
    assert record.config == config
    assert record.environment["torch"] == torch.__version__
    assert record.environment["threads"] == 1
    assert record.task["corpus"]["documents"]["train"] > 0
    assert record.wall_s > 0
    assert record.complete


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_learning_rate_rises_to_its_peak_and_ends_at_its_share(decay):
    config = TrainConfig(
        steps=100, warmup_steps=10, learning_rate=1.0, decay=decay, final_share=0.1
    )
    rates = [config.learning_rate_at(step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)


def test_learning_rate_falls_at_milestones_and_stays_between_them():
    config = TrainConfig(
        steps=20, warmup_steps=2, learning_rate=1.0, decay="milestones", milestones=(0.25, 0.5),
        milestone_factor=0.1, final_share=0.05,
    )  # fmt: skip
    rates = [config.learning_rate_at(step) for step in range(1, 21)]
    assert rates == [0.5, *[1.0] * 4, *[0.1] * 5, *[0.05] * 10]
    plain = TrainConfig(steps=20, warmup_steps=0, learning_rate=1.0, decay="milestones")
    assert [plain.learning_rate_at(s) for s in (1, 10, 11, 15, 16, 20)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"milestones": (0.5, 0.5)}, r"milestones: value is \(0.5, 0.5\); allowed are rising"),
        ({"milestones": (0.75, 0.5)}, "milestones"),
        ({"milestones": (0.5, 1.0)}, "milestones"),
        ({"milestones": (0, 0.5)}, "milestones"),
        ({"milestones": ("half",)}, "milestones"),
        ({"milestones": 0.5}, "milestones: value is 0.5"),
        ({"milestone_factor": 1}, "milestone_factor: value is 1; allowed is above 0"),
        ({"milestone_factor": 0.0}, "milestone_factor"),
        ({"decay": "steps"}, "decay.*cosine, linear, milestones, none"),
    ],
)
def test_bad_milestones_are_one_clear_line(changes, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**changes)


def test_a_run_cut_at_a_milestone_goes_on_at_the_lower_rate(text_folder, tmp_path):
    config = tiny(text_folder, steps=12, decay="milestones", milestones=[0.5], warmup_steps=2)
    assert config.milestones == (0.5,)
    train(config, tmp_path / "cut", stop_after=6)
    cut, whole = train(config, tmp_path / "cut"), train(config, tmp_path / "whole")
    for column in ("loss", "learning_rate"):
        assert cut.training[column].to_list() == whole.training[column].to_list()
    rates = whole.training["learning_rate"].to_list()
    assert rates[6:] == pytest.approx([rates[5] / 10] * 6)


def test_config_survives_json(text_folder):
    config = tiny(text_folder, layers=("encoder.*",))
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_divergence_is_named_and_leaves_a_readable_record(text_folder, tmp_path):
    config = tiny(
        text_folder, algorithm="dense", density=1.0, optimizer="sgd", learning_rate=1e30,
        clip_norm=None, warmup_steps=0, steps=50,
    )  # fmt: skip
    with pytest.raises(Diverged, match=r"loss: value is (nan|inf) in step \d+"):
        train(config, tmp_path / "run")
    record = TrainingRecord.load(tmp_path / "run")
    assert 0 < record.steps < 50
    assert not record.complete


def test_another_config_in_the_folder_is_refused_by_its_key(text_folder, tmp_path):
    train(tiny(text_folder, steps=3), tmp_path / "run")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").glob("[!.]*"))
    with pytest.raises(InputError, match=r"learning_rate: value is 0\.5; .* begun with 0\.002"):
        train(tiny(text_folder, steps=3, learning_rate=0.5), tmp_path / "run")
    assert before == sorted(
        (p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").glob("[!.]*")
    )


def test_changed_text_is_refused(text_folder, tmp_path):
    copy = tmp_path / "text"
    copy.mkdir()
    for file in text_folder.iterdir():
        (copy / file.name).write_text(file.read_text())
    train(tiny(copy, steps=3), tmp_path / "run", stop_after=1)
    (copy / "000.txt").write_text("another text")
    with pytest.raises(InputError, match="begun on data with digest"):
        train(tiny(copy, steps=3), tmp_path / "run")


def test_a_foreign_folder_is_left_as_it_is(text_folder, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"holds 'letter.txt' but no config.json"):
        train(tiny(text_folder), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_folder_that_cannot_be_made_is_named(text_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Not a directory"):
        train(tiny(text_folder), tmp_path / "file" / "run")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_named(text_folder, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        train(tiny(text_folder), tmp_path / "run")


def test_a_broken_checkpoint_is_named_and_kept(text_folder, tmp_path):
    train(tiny(text_folder), tmp_path / "run", stop_after=4)
    path = tmp_path / "run" / run_folder.CHECKPOINT
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"checkpoint\.pt: damaged.*restore it from a copy"):
        train(tiny(text_folder), tmp_path / "run")
    assert path.stat().st_size == 200


def test_a_folder_in_use_is_refused(text_folder, tmp_path):
    with (
        run_folder.claimed(tmp_path / "run"),
        pytest.raises(InputError, match="another process trains in it"),
    ):
        train(tiny(text_folder), tmp_path / "run")


def test_a_failing_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    run_folder.write_config(tmp_path, {"a": 1})
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hwsim.files._sync", full)
    with pytest.raises(InputError, match="No space left on device"):
        run_folder.write_config(tmp_path, {"a": 2})
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "manifest.json"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps: value is 0; allowed is an integer of at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate: value is nan"),
        ({"density": 1.5}, "density: value is 1.5; allowed is at least 0, at most 1"),
        ({"algorithm": "rigel"}, "unknown algorithm 'rigel'; did you mean 'rigl'"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'"),
        ({"algorithm": "dense"}, "density: value is 0.3; allowed with algorithm 'dense' is 1"),
        ({"task": "mlmm"}, "unknown task 'mlmm'"),
        ({"task_options": 3}, "task_options: value is 3"),
    ],
)
def test_wrong_settings_are_named(text_folder, changes, words):
    with pytest.raises(InputError, match=words):
        tiny(text_folder, **changes)


def test_tensorboard_events_are_written_when_asked_for(text_folder, tmp_path):
    pytest.importorskip("tensorboard")
    train(tiny(text_folder, steps=3, tensorboard=True), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_the_model_is_the_tasks_own_unless_it_is_named():
    assert (TrainConfig().model, TrainConfig().preset) == ("bert", "tiny")
    assert TrainConfig(preset="mini").preset == "mini"
    with pytest.raises(
        InputError, match=r"preset: none given; allowed is a size of model .*: .*small"
    ):
        TrainConfig(model="mlp")


@pytest.mark.parametrize("key", ["test", "tensorboard", "compute", "model"])
def test_a_setting_of_another_kind_is_refused(key):
    with pytest.raises(InputError, match=key):
        TrainConfig(**{key: 3})


def test_warming_up_kernels_changes_nothing_and_is_not_counted(text_folder):
    from sparse_train.runs.run import Run, private_randomness
    from sparse_train.tasks import make_task

    config = tiny(text_folder, compute="sparse", steps=6)
    task = make_task("mlm", config.task_options).prepare()
    losses = []
    for warm in (True, False):
        with private_randomness(0):
            run = Run(config, task)
            run._warm = not warm
            losses.append([run.advance()[0] for _ in range(6)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_each_masked_layer_trains_at_the_rate_over_its_own_density(text_folder, power):
    from sparse_train.runs.run import Run, private_randomness
    from sparse_train.tasks import make_task

    config = tiny(text_folder, rate_power=power, algorithm="gmp", density=0.2, steps=12)
    with private_randomness(0):
        run = Run(config, make_task("mlm", config.task_options).prepare())
        while run.step < 12:
            masks = run.sparsifier.masks()
            run.advance()
            for group in run.optimizer.param_groups:
                names = [n for n, layer in run.sparsifier.layers.items()
                         if any(p is layer.parameter for p in group["params"])]  # fmt: skip
                factor = masks[names[0]].density ** -power if names else 1.0
                assert len(names) <= 1
                assert group["lr"] == pytest.approx(config.learning_rate_at(run.step) * factor)
    held = [id(p) for group in run.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, run.model.parameters()))


def test_a_run_at_the_rate_over_density_goes_on_to_the_bit(text_folder, tmp_path):
    config = tiny(text_folder, rate_power=1.0)
    whole = train(config, tmp_path / "a")
    train(config, tmp_path / "b", stop_after=7)
    again = train(config, tmp_path / "b")
    assert whole.training["loss"].to_list() == again.training["loss"].to_list()
