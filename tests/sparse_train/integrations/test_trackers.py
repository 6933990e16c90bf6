"""What frameworks log to gets the figures: read back from what each tracker wrote to the disk.

`make test-frameworks` installs the trackers; without one its tests are skipped.
"""

import importlib
import json
import struct
import time

import pytest
import torch

from tests.sparse_train.integrations._training import (
    SETTINGS,
    Data,
    Net,
    half_loader,
    loader,
    start,
)

torch.set_num_threads(1)
FIGURES = {"sparse/density", "sparse/explored", "sparse/updates"}
NET_TIME = "sparse/net_time_s/zen4"
TRACKERS = pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "wandb"])


class Read(dict):
    """Key → step → value, of what was logged."""

    def note(self, key, step, value):
        self.setdefault(key.removeprefix("train/"), {})[step] = value


def in_tensorboard(folder):
    module = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = Read()
    for file in folder.rglob("events.*"):
        events = module.EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            for one in events.Scalars(tag):
                found.note(tag, one.step, one.value)
    return found


def in_mlflow(folder):
    client = importlib.import_module("mlflow.tracking").MlflowClient(folder.as_uri())
    found = Read()
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            for key in run.data.metrics:
                for one in client.get_metric_history(run.info.run_id, key):
                    found.note(key, one.step, one.value)
    return found


def in_wandb(folder):
    """The last offline run, once it is written to its end; that is done by another process."""
    importlib.import_module("wandb").finish()
    file = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda one: one.stat().st_mtime_ns)
    for _ in range(300):
        records = list(in_wandb_file(file.read_bytes()))
        if any(one.WhichOneof("record_type") == "exit" for one in records):
            break
        time.sleep(0.1)
    found = Read()
    for history in (one.history for one in records):
        row = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in history.item
        }
        step = row.get("train/global_step", row.get("trainer/global_step", history.step.num))
        for key, value in row.items():
            found.note(key, step, value)
    return found


def in_wandb_file(data):
    """Blocks of 32 KiB after a head of 7 bytes; in each, records of 4 bytes check, 2 length, 1
    kind."""
    record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield record.FromString(whole)
            whole = b""


READERS = {"tensorboard": in_tensorboard, "mlflow": in_mlflow, "wandb": in_wandb}


@pytest.fixture
def logs(tracker, tmp_path, tmp_path_factory, monkeypatch):
    """The folder that the tracker writes to."""
    module = pytest.importorskip(tracker, reason=f"{tracker} is not installed")
    folder = tmp_path / "logs"
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(folder))
    if tracker == "wandb":  # which keeps to the first folder that a process has given it
        folder = tmp_path_factory.getbasetemp() / "wandb-runs"
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_DIR", str(folder))
        monkeypatch.setenv("WANDB_SILENT", "true")
    if tracker == "mlflow":
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", folder.as_uri())
        module.set_tracking_uri(folder.as_uri())
    yield folder
    if tracker == "mlflow":
        module.end_run()
        module.set_tracking_uri(None)


def holds(found, steps, final):
    """The figures of the steps, the last ones equal to the follower's own."""
    assert set(found) >= {*FIGURES, NET_TIME}
    for key in (*FIGURES, NET_TIME):
        assert set(steps) <= set(found[key]), key
        assert found[key][steps[-1]] == pytest.approx(final[key], rel=1e-6)
    rows = [{key: found[key][step] for key in (*FIGURES, NET_TIME)} for step in steps]
    for row in rows:
        assert row["sparse/density"] == pytest.approx(0.3, abs=0.01)
        assert row["sparse/density"] <= row["sparse/explored"] <= 1
    for key in ("sparse/updates", "sparse/explored", NET_TIME):
        values = [row[key] for row in rows]
        assert values == sorted(values) and values[0] < values[-1]


def trainer_run(folder, report_to, *callbacks):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from sparse_train.integrations.huggingface import SparseCallback

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return loader()

    model, optimizer = start()
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=9, save_strategy="no", logging_steps=3, use_cpu=True,
        report_to=report_to, disable_tqdm=True,
    )  # fmt: skip
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = Trainer(
        model, arguments, train_dataset=Data(), optimizers=(optimizer, constant),
        callbacks=[made() for made in callbacks],
    )  # fmt: skip
    callback = SparseCallback(**SETTINGS, devices=("zen4",))
    callback.add_to(trainer)
    trainer.train()
    return callback.follower.figures()


@pytest.mark.filterwarnings("ignore")
@TRACKERS
def test_trackers_of_the_trainer(tracker, tmp_path, logs):
    final = trainer_run(tmp_path / "out", [tracker])
    holds(READERS[tracker](logs), [3, 6, 9], final)


@pytest.mark.filterwarnings("ignore")
def test_any_callback_of_the_trainer_is_told(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    found = Read()

    class Tracker(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            for key, value in logs.items():
                found.note(key, state.global_step, value)

    holds(found, [3, 6, 9], trainer_run(tmp_path / "out", [], Tracker))


def lightning_logger(tracker, folder):
    loggers = importlib.import_module("lightning.pytorch.loggers")
    return {
        "tensorboard": lambda: loggers.TensorBoardLogger(folder),
        "mlflow": lambda: loggers.MLFlowLogger("sparse", tracking_uri=folder.as_uri()),
        "wandb": lambda: loggers.WandbLogger(save_dir=folder, offline=True),
    }[tracker]()


@pytest.mark.filterwarnings("ignore")
@TRACKERS
def test_loggers_of_lightning(tracker, tmp_path, logs):
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
    from lightning.pytorch.loggers import CSVLogger

    from sparse_train.integrations.lightning import SparseCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net(x)["loss"]

        def training_step(self, batch, _):
            return self(batch["x"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    callback = SparseCallback(**SETTINGS, devices=("zen4",))
    lightning.Trainer(
        max_epochs=1, callbacks=[callback], enable_checkpointing=False,
        logger=[lightning_logger(tracker, logs), CSVLogger(tmp_path)], log_every_n_steps=5,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    ).fit(Module(), half_loader())  # fmt: skip
    holds(READERS[tracker](logs), [5, 10, 15], callback.follower.figures())
    table = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    assert set(table[0].split(",")) >= {*FIGURES, NET_TIME} and len(table) >= 4


@pytest.mark.filterwarnings("ignore")
@TRACKERS
def test_trackers_of_accelerate(tracker, tmp_path, logs):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    from sparse_train.integrations.accelerate import AcceleratedSparsity

    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker, project_dir=logs)
    accelerator.init_trackers("sparse")
    model, optimizer = accelerator.prepare(*start())
    sparse = AcceleratedSparsity(accelerator, model, optimizer, log_every=5, devices=("zen4",),
                                 **SETTINGS)  # fmt: skip
    for batch in half_loader():
        accelerator.backward(model(**batch)["loss"])
        optimizer.step()
        optimizer.zero_grad()
        sparse.step()
    accelerator.end_training()
    holds(READERS[tracker](logs), [5, 10, 15], sparse.follower.figures())
