"""The same training in every loop that people write: equal masks and weights, saved and resumed.

Frameworks are optional: `make test-frameworks` installs them; without them their tests are skipped.
"""

import importlib
import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from hwsim import InputError
from sparse_train import sparsify
from tests.sparse_train.loops._loops import net

torch.set_num_threads(1)
STEPS = 30
SETTINGS = {"algorithm": "rigl", "density": 0.3, "update_interval": 3, "end_step": 28}


class Data(Dataset):
    def __len__(self):
        return 4 * STEPS

    def __getitem__(self, i):
        return {"x": torch.randn(12, generator=torch.Generator().manual_seed(i))}


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.body = net(seed)

    def forward(self, x):
        return {"loss": (self.body(x) - 1).square().mean()}


def loader():
    return DataLoader(Data(), 4)


def start(seed=0):
    model = Net(seed)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def in_plain_loop(batches=None):
    model, optimizer = start()
    sparsifier = sparsify(model, optimizer, **SETTINGS)
    for batch in batches or loader():
        optimizer.zero_grad()
        model(**batch)["loss"].backward()
        optimizer.step()
        sparsifier.step()
    return model, sparsifier


def same(one, other, *, exact=True):
    masks, others = one[1].masks(), other[1].masks()
    assert [n.removeprefix("net.") for n in others] == list(masks) and other[1].version >= 5
    assert list(masks.values()) == list(others.values())
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_in_a_closure():
    model, optimizer = start()
    sparsifier = sparsify(model, optimizer, **SETTINGS)
    for batch in loader():

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = model(**batch)["loss"]
            loss.backward()
            return loss

        optimizer.step(closure)
        sparsifier.step()
    same(in_plain_loop(), (model, sparsifier))


@pytest.mark.slow
def test_compiled():
    model, optimizer = start()
    sparsifier = sparsify(model, optimizer, **SETTINGS)
    compiled = torch.compile(model)
    for batch in loader():
        optimizer.zero_grad()
        compiled(**batch)["loss"].backward()
        optimizer.step()
        sparsifier.step()
    same(in_plain_loop(), (model, sparsifier), exact=False)


# Lightning. It goes on at the begin of an epoch, so there are two.


def half_loader():
    return DataLoader(Subset(Data(), range(2 * STEPS)), 4)


def lightning_run(folder, steps, resume=None, seed=0, **options):
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
    from sparse_train.integrations.lightning import SparseCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net(seed)

        def training_step(self, batch, _):
            return self.net(**batch)["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    module = Module()
    callback = SparseCallback(**SETTINGS, **options)
    trainer = lightning.Trainer(
        max_epochs=steps // 15, callbacks=[callback], default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, half_loader(), ckpt_path=resume)
    return trainer, module.net, callback.follower


@pytest.mark.filterwarnings("ignore")
def test_in_lightning_and_resumed(tmp_path):
    plain = in_plain_loop([*half_loader(), *half_loader()])
    _, model, follower = lightning_run(tmp_path, STEPS)
    assert follower.figures()["sparse/updates"] == 9
    same(plain, (model, follower.sparsifier))
    trainer, _, _ = lightning_run(tmp_path, 15)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, model, follower = lightning_run(tmp_path, STEPS, tmp_path / "half.ckpt", seed=3)
    same(plain, (model, follower.sparsifier))


# Hugging Face.


def trainer_run(folder, steps, resume=None, seed=0):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from sparse_train.integrations.huggingface import SparseCallback

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return loader()

    model, optimizer = start(seed)
    callback = SparseCallback(**SETTINGS, devices=("zen4",))
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=steps, save_steps=15, save_strategy="steps", logging_steps=5,
        max_grad_norm=0.0, use_cpu=True, report_to=[], disable_tqdm=True,
    )  # fmt: skip
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = Trainer(model, arguments, train_dataset=Data(), optimizers=(optimizer, constant))
    callback.add_to(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, model, callback.follower


@pytest.mark.filterwarnings("ignore")
def test_in_transformers_trainer_and_resumed(tmp_path):
    plain = in_plain_loop()
    trainer, model, follower = trainer_run(tmp_path, STEPS)
    same(plain, (model, follower.sparsifier))
    logged = [row for row in trainer.state.log_history if "sparse/density" in row]
    assert len(logged) >= 6 and logged[-1]["sparse/net_time_s/zen4"] > 0
    half = str(tmp_path / "checkpoint-15")
    _, model, again = trainer_run(tmp_path / "again", STEPS, half, seed=3)
    same(plain, (model, again.sparsifier))
    assert again.figures() == follower.figures()


# accelerate.


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("before", [False, True])
def test_under_accelerate_and_resumed(before, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    from sparse_train.integrations.accelerate import AcceleratedSparsity

    def run(until, resume=None, seed=0):
        accelerator = accelerate.Accelerator(cpu=True)
        model, optimizer = start(seed)
        if before:
            sparse = sparsify(model, optimizer, **SETTINGS)
            accelerator.register_for_checkpointing(sparse)
        model, optimizer = accelerator.prepare(model, optimizer)
        if not before:
            sparse = AcceleratedSparsity(accelerator, model, optimizer, **SETTINGS)
        sparsifier = sparse if before else sparse.sparsifier
        if resume:
            accelerator.load_state(resume)
        for number, batch in enumerate(loader()):
            if number < sparsifier.steps:
                continue
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch)["loss"])
                optimizer.step()
                optimizer.zero_grad()
            sparse.step()
            if sparsifier.steps == until:
                break
        if until < STEPS:
            accelerator.save_state(str(tmp_path / "state"))
        return accelerator.unwrap_model(model), sparsifier

    plain = in_plain_loop()
    same(plain, run(STEPS))
    run(13)
    same(plain, run(STEPS, str(tmp_path / "state"), seed=3))


# Several processes.


def _worker(rank, port, folder, how):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        torch.save(_distributed(rank, how), f"{folder}/{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def _sharded(seed=0):
    from torch.distributed.fsdp import fully_shard

    model, _ = start(seed)
    fully_shard(model.body[0])
    fully_shard(model)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def _resumed(model, optimizer, sparsifier):
    """Others, begun from another seed, that go on from the states of these."""
    from torch.distributed.checkpoint import state_dict as states

    saved = states.get_state_dict(model, optimizer)
    other, other_optimizer = _sharded(seed=3)
    other_sparsifier = sparsify(other, other_optimizer, **SETTINGS, seed=9)
    states.set_state_dict(
        other, other_optimizer, model_state_dict=saved[0], optim_state_dict=saved[1]
    )
    other_sparsifier.load_state_dict(sparsifier.state_dict())
    return other, other_optimizer, other_sparsifier


def _distributed(rank, how):
    model, optimizer = _sharded() if how.startswith("fsdp") else start()
    sparsifier = sparsify(model, optimizer, **SETTINGS)
    run = model
    if how.startswith("ddp"):
        view = how == "ddp view"
        run = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=view)
    if how == "ddp compressed":
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

        run.register_comm_hook(None, fp16_compress_hook)
    if how == "ddp power":
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power

        state = power.PowerSGDState(None, 1, start_powerSGD_iter=2, min_compression_rate=1)
        run.register_comm_hook(state, power.powerSGD_hook)
    for step, batch in enumerate(loader()):
        if step == 13 and how == "fsdp resumed":
            model, optimizer, sparsifier = _resumed(model, optimizer, sparsifier)
            run = model
        optimizer.zero_grad()
        half = batch["x"][2 * rank : 2 * rank + 2]
        run(half)["loss"].backward()
        optimizer.step()
        sparsifier.step()
        for layer in sparsifier.layers.values():
            assert not (whole(layer.parameter) * ~whole(layer.mask)).any()
            for value in optimizer.state[layer.parameter].values():
                if torch.is_tensor(value) and value.ndim == 2:
                    assert not (whole(value) * ~whole(layer.mask)).any()
    masks = {n: torch.from_numpy(m.array.copy()) for n, m in sparsifier.masks().items()}
    weights = {n: whole(p.detach()).clone() for n, p in model.named_parameters()}
    return {"masks": masks, "weights": weights, "version": sparsifier.version}


def _sharded_late(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    from torch.distributed.fsdp import fully_shard

    model, optimizer = start()
    sparsifier = sparsify(model, optimizer, **SETTINGS)
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(next(iter(loader()))["x"])["loss"].backward()
    optimizer.step()
    try:
        sparsifier.step()
    except InputError as error:
        torch.save(str(error), f"{folder}/said.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_model_that_is_sharded_after_it_was_sparsified_is_refused_in_one_line(tmp_path):
    mp.spawn(_sharded_late, (free_port(), str(tmp_path)), nprocs=1)
    said = torch.load(tmp_path / "said.pt", weights_only=True)
    assert "fully_shard" in said and "\n" not in said


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["ddp", "ddp view", "ddp compressed", "ddp power", "fsdp", "fsdp resumed"]
)
def test_on_two_ranks(how, tmp_path):
    mp.spawn(_worker, (free_port(), str(tmp_path), how), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["version"] >= 5
    for name in one["masks"]:
        assert torch.equal(one["masks"][name], two["masks"][name]), name
    for name in one["weights"]:
        assert torch.equal(one["weights"][name], two["weights"][name]), name
    model, sparsifier = in_plain_loop()
    if how in ("ddp", "ddp view", "fsdp", "fsdp resumed"):
        for name, mask in sparsifier.masks().items():
            assert (torch.from_numpy(mask.array) == one["masks"][name]).all(), name
        for name, parameter in model.named_parameters():
            assert torch.allclose(parameter, one["weights"][name], rtol=1e-4, atol=1e-6), name


# What the frameworks log to gets the figures too.

FIGURES = {"sparse/density", "sparse/explored", "sparse/updates"}
NET_TIME = "sparse/net_time_s/zen4"


def in_tensorboard(folder):
    """Tag → steps, of all events below a folder."""
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    found = {}
    for file in folder.rglob("events.*"):
        events = event_accumulator.EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend(one.step for one in events.Scalars(tag))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tracker", ["any", "tensorboard", "wandb"])
def test_trackers_of_the_trainer_get_the_figures(tracker, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    if tracker != "any":
        pytest.importorskip(tracker, reason=f"{tracker} is not installed")
    from sparse_train.integrations.huggingface import SparseCallback

    seen = {}
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return loader()

    model, optimizer = start()
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), max_steps=9, save_strategy="no", logging_steps=3, use_cpu=True,
        report_to=[] if tracker == "any" else [tracker], disable_tqdm=True,
    )  # fmt: skip
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = Trainer(model, arguments, train_dataset=Data(), optimizers=(optimizer, constant))
    SparseCallback(**SETTINGS).add_to(trainer)

    class Tracker(transformers.TrainerCallback):
        """As MLflow's, or anybody's: it is told the logs and the step."""

        def on_log(self, args, state, control, logs=None, **_):
            note(None, logs, state.global_step)

    def note(run, row, *args, **_):
        for key in row:
            seen.setdefault(key, []).append(row.get("train/global_step", *args[:1]))

    if tracker == "any":
        trainer.add_callback(Tracker())
    if tracker == "wandb":
        wandb_run = importlib.import_module("wandb.sdk.wandb_run")
        monkeypatch.setattr(wandb_run.Run, "log", note)
    trainer.train()
    found = in_tensorboard(tmp_path / "board") if tracker == "tensorboard" else seen
    logged = {key.removeprefix("train/"): steps for key, steps in found.items()}
    assert set(logged) >= FIGURES
    assert {3, 6, 9} <= set(logged["sparse/density"])


@pytest.mark.filterwarnings("ignore")
def test_loggers_of_lightning_get_the_figures(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

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

    lightning.Trainer(
        max_epochs=1, callbacks=[SparseCallback(**SETTINGS, devices=("zen4",))],
        enable_checkpointing=False,
        logger=[TensorBoardLogger(tmp_path / "board"), CSVLogger(tmp_path / "table")],
        log_every_n_steps=5, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu",
    ).fit(Module(), half_loader())  # fmt: skip
    found = in_tensorboard(tmp_path / "board")
    assert set(found) >= {*FIGURES, NET_TIME} and found["sparse/density"] == [5, 10, 15]
    table = next((tmp_path / "table").rglob("metrics.csv")).read_text().splitlines()
    assert set(table[0].split(",")) >= {*FIGURES, NET_TIME} and len(table) >= 4


@pytest.mark.filterwarnings("ignore")
def test_trackers_of_accelerate_get_the_figures(tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from sparse_train.integrations.accelerate import AcceleratedSparsity

    accelerator = accelerate.Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
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
    found = in_tensorboard(tmp_path)
    assert set(found) >= {*FIGURES, NET_TIME} and found["sparse/density"] == [5, 10, 15]
