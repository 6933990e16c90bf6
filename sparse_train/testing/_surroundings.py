"""Laws of what stands around a sparsifier: layers, averages, budgets, prices, ranks, devices."""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel

from sparse_train import averaging
from sparse_train.masking.kinds import weights_of
from sparse_train.naming import layer_name
from sparse_train.testing._training import Maker, check_invariants, small_model, train_step
from sparse_train.workload import workload

_PATIENCE_S = 120


class _InOut(nn.Module):
    """A product whose weight is stored (in, out), as GPT-2's."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.nx, self.nf = n_in, n_out
        self.weight = nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class _Odd(nn.Module):
    """What is easily masked along the wrong side, as a whole, or though it is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = _InOut(12, 8)
        self.scaled = weight_norm(nn.Linear(8, 6))
        self.experts = _Experts(3, 6)
        self.unused = nn.Linear(6, 4)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.experts(self.scaled(self.stored(x).relu()).relu()))


class _Experts(nn.Module):
    """Stacked experts (experts, out, in), all asked."""

    def __init__(self, experts: int, width: int) -> None:
        super().__init__()
        self.num_experts, self.hidden_size = experts, width
        self.up = nn.Parameter(torch.randn(experts, 10, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,eoi->beo", x, self.up).relu().mean(1)[:, : x.shape[1]]


def check_layers(make: Maker, steps: int = 8) -> None:
    """Masks lie along a weight's own sides, one for each expert; gains of norms are no weights."""
    torch.manual_seed(0)
    model = _Odd()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparsifier = make(model, optimizer)
    for name, layer in sparsifier.layers.items():
        assert min(layer.weight_shape) > 1, f"layer {name!r}: a gain is masked, not a weight"
    for name, shape in {
        "stored": (8, 12),
        **{f"experts.up[{e}]": (10, 6) for e in range(3)},
    }.items():
        found = sparsifier.masks().get(name)
        assert found is not None, f"layer {name!r} has no mask of its own"
        assert found.shape == shape, f"layer {name!r} is masked as {found.shape}, not {shape}"
    for step in range(steps):
        optimizer.zero_grad()
        random = torch.Generator().manual_seed(step)
        model(torch.randn(5, 12, generator=random)).square().mean().backward()
        optimizer.step()
        sparsifier.step()
        check_invariants(sparsifier, optimizer)


def check_averages(make: Maker, steps: int = 10) -> None:
    """An average of the weights is as sparse as the model, and its masks are boolean."""
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    sparsifier = make(model, optimizer)
    theirs, ours = AveragedModel(model), averaging.SparseAverage(sparsifier, 0.9)
    for step in range(steps):
        train_step(model, optimizer, sparsifier, step)
        theirs.update_parameters(model)
        averaging.mask_average(theirs, sparsifier)
        ours.update()
        for name, layer in sparsifier.layers.items():
            path = next(p for p, m in model.named_modules() if m is layer.module)
            for kind, average in (("SparseAverage", ours.model), ("AveragedModel", theirs.module)):
                weight = getattr(average.get_submodule(path), layer.attribute)
                assert not weight[~layer.mask].any(), f"layer {name!r}: denser in {kind}"
            mask = getattr(theirs.module.get_submodule(path), layer.buffer)
            assert torch.equal(mask, layer.mask), f"layer {name!r}: the average's mask is another"


def check_total(make: Maker) -> None:
    """The density asked for is met within half a step of one layer, in what steps it may be."""
    torch.manual_seed(0)
    widths = (24, 50, 26, 40, 30, 18)
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths)))
    sparsifier = make(model, torch.optim.SGD(model.parameters(), lr=0.1))
    pattern, plan, masks = sparsifier.pattern, sparsifier.plan, sparsifier.masks()
    if sparsifier.algorithm.first_mask == "dense" or pattern.only_density is not None:
        return
    density: Any = plan.schedule(0.0)
    asked = density * sum(mask.size for mask in masks.values())
    most = 1.0
    for name, budget in plan.budgets(0).items():
        mask = masks[name]
        below, above = pattern.steps(mask.shape, mask.nnz)
        most = max(most, (above - below) / 2 + 1)
        if budget in pattern.steps(mask.shape, budget):
            asked += mask.nnz - budget  # tiles at an edge are smaller, and which are chosen is free
    met = sum(mask.nnz for mask in masks.values())
    assert abs(met - asked) <= most, (
        f"{met} weights are active; asked: {asked:.1f}, and half a step of a layer is {most:.0f}"
    )


def check_prices(make: Maker) -> None:
    """A step is priced under the masks of any model: each product once, what is not reached not."""
    torch.manual_seed(0)
    model = _Odd()
    sparsifier = make(model, torch.optim.SGD(model.parameters(), lr=0.1))
    batch = torch.randn(5, 12)
    dense = workload(model, batch, optimizer=None, train=False)
    sparse = workload(model, batch, sparsifier.masks(), optimizer=None, train=False)
    saved = 2 * 5 * sum(
        mask.size - mask.nnz
        for name, mask in sparsifier.masks().items()
        if not name.startswith("unused")
    )  # fmt: skip
    found = dense.flops - sparse.flops
    assert found == saved, f"masks save {found} FLOPs; their inactive weights are {saved}"
    known = {layer_name(weight.name) for weight in weights_of(model)}
    assert set(sparse.unmasked) <= known & {"unused"}, f"not priced: {sparse.unmasked}"


def check_ranks(make: Maker, steps: int = 10) -> None:
    """Two processes with other data have equal masks and weights after every step.

    Not one of `check_loops`: it takes some seconds, and what makes the sparsifier goes to processes
    that start anew, so that it is `maker(…)` or a function of a module.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ranks: list[Any] = [
            context.Process(target=_rank, args=(rank, folder, make, steps)) for rank in range(2)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(_PATIENCE_S)
        for rank, process in enumerate(ranks):
            if process.is_alive():
                process.kill()
            assert process.exitcode == 0, f"rank {rank} of two did not end well"
        one, other = (torch.load(Path(folder) / f"{rank}.pt") for rank in range(2))
    for step, (mine, theirs) in enumerate(zip(one, other, strict=True), 1):
        for name, value in mine.items():
            assert torch.equal(value, theirs[name]), f"{name} differs between ranks after {step}"


def _rank(rank: int, folder: str, make: Maker, steps: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        sparsifier = make(model, optimizer)
        parallel = nn.parallel.DistributedDataParallel(model)
        kept = []
        for step in range(steps):
            train_step(parallel, optimizer, sparsifier, 2 * step + rank)
            masks = {f"the mask of {n}": one.mask for n, one in sparsifier.layers.items()}
            kept.append(_cloned({**masks, **dict(model.named_parameters())}))
        torch.save(kept, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def _cloned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


def check_places(make: Maker, steps: int = 10) -> None:
    """Chosen where the weights are, masks are those that the host chooses; of ties, the first."""
    rates: tuple[float, ...] = (0.05, 0.0)  # standing still, weights keep their ties
    for rate in rates:
        runs = []
        for place in ("host", "device"):
            model = small_model()
            for parameter in model.parameters():
                parameter.data.mul_(8).round_().div_(8)
            optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
            sparsifier = make(model, optimizer)
            sparsifier.choose_on = place
            for step in range(steps):
                train_step(model, optimizer, sparsifier, step)
            runs.append((model, sparsifier))
        (one, host), (other, device) = runs
        assert host.masks() == device.masks(), "chosen on a device: other masks"
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b), "chosen on a device: other weights"


SURROUNDINGS: tuple[Callable[[Maker], None], ...] = (
    check_layers, check_averages, check_total, check_prices, check_places,
)  # fmt: skip
