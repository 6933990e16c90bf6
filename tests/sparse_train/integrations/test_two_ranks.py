"""The same training on two ranks, DDP and FSDP2: equal to one process, saved and resumed."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from hwsim import InputError
from sparse_train import sparsify
from tests.sparse_train.integrations._training import SETTINGS, in_plain_loop, loader, start

torch.set_num_threads(1)


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
