"""The same training in every loop that people write: equal masks and weights, saved and resumed.

Frameworks are optional: `make test-frameworks` installs them; without them their tests are skipped.
"""

import pytest
import torch

from sparse_train import sparsify
from tests.sparse_train.integrations._training import (
    SETTINGS,
    STEPS,
    Data,
    Net,
    half_loader,
    in_plain_loop,
    loader,
    same,
    start,
)

torch.set_num_threads(1)


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
