"""Sixty public models: traced with torch's FLOPs, masked, trained, saved and resumed."""

import importlib.util
import io
from collections.abc import Mapping
from math import prod

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hwsim.workload import PRODUCTS
from sparse_train import sparsify, workload
from sparse_train.testing import check_invariants
from tests.public_models import _catalogue
from tests.torchvision_that_fits import torchvision

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
torch.set_num_threads(1)
STEPS = 12
PACKAGES = {"hf": "transformers", "timm": "timm", "torchvision": "torchvision",
            "pyg": "torch_geometric"}  # fmt: skip
aten = torch.ops.aten


def product(left, right, *rest, out_shape=None, **others):
    """2·m·k·n: rows of the left, what is summed over, columns of the right."""
    return 2 * left[-2] * left[-1] * right[-1]


def with_vector(matrix, vector, *rest, out_shape=None, **others):
    """2·m·k of a matrix times a vector."""
    return 2 * matrix[0] * matrix[1]


def two_gradients(grad, x, weight, *rest, out_shape=None, **others):
    """2·positions·weights for each gradient that is asked for, as the forward pass has it.

    torch's own formula for the weight's gradient takes a grouped convolution for a whole one.
    """
    transposed, wanted = rest[4], rest[7]
    side = x if transposed else grad
    return 2 * side[0] * prod(side[2:]) * prod(weight) * sum(wanted[:2])


# What torch's counter leaves out, or gets wrong, each by its operator and formula.
CORRECTIONS = {
    aten.convolution_backward: two_gradients,
    aten._grouped_mm: product,
    aten.mv: with_vector,
    aten.addmv: lambda added, matrix, vector, *rest, **others: with_vector(matrix, vector),
    aten.addbmm: lambda added, left, right, *rest, **others: 2 * left[0] * product(left, right),
}


def scalar(output):
    """A loss from what a model gives."""
    if isinstance(output, Tensor):
        return (output - 1).square().mean()  # some heads start at 0, where a square has no slope
    if isinstance(output, Mapping) and output.get("loss") is not None:
        return output["loss"]
    values = output.values() if isinstance(output, Mapping) else output
    return sum(v.square().mean() for v in values if isinstance(v, Tensor) and v.is_floating_point())


def called(model, batch):
    if isinstance(batch, dict):
        return scalar(model(**batch))
    return scalar(model(*batch) if isinstance(batch, tuple) else model(batch))


@pytest.fixture(params=_catalogue.NAMES)
def name(request):
    package = PACKAGES[request.param.partition(":")[0]]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    torchvision()  # others import it too
    return request.param


def test_flops_are_those_of_torch(name):
    model, batch = _catalogue.made(name)
    model.train()
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=CORRECTIONS) as counter,
    ):
        called(model, batch).backward()
    with sdpa_kernel(SDPBackend.MATH):
        step = workload(model, batch, loss=scalar)
    found = sum(op.dense_flops for op in step if op.kind in (*PRODUCTS, "attention"))
    assert found == counter.get_total_flops()
    assert step.unknown_share < 0.05, step.unknown


def start(name, pattern):
    model, batch = _catalogue.made(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    density = 0.5 if pattern == "2:4" else 0.3
    sparsifier = sparsify(model, optimizer, "rigl", density, pattern, update_interval=3,
                          total_steps=20)  # fmt: skip
    return model, batch, optimizer, sparsifier


def train(run, steps):
    model, batch, optimizer, sparsifier = run
    for _ in range(steps):
        torch.manual_seed(sparsifier.steps)
        optimizer.zero_grad()
        called(model, batch).backward()
        optimizer.step()
        sparsifier.step()
        check_invariants(sparsifier, optimizer)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_trains_under_masks_and_resumes_to_the_bit(name, pattern):
    run = start(name, pattern)
    model, batch, optimizer, sparsifier = run
    train(run, STEPS // 2)
    file = io.BytesIO()
    torch.save([p.state_dict() for p in (model, optimizer, sparsifier)], file)
    train(run, STEPS // 2)
    assert sparsifier.version >= 2
    sparse = workload(model, batch, sparsifier.masks(), loss=scalar)
    assert sparse.flops < sparse.dense_flops

    other = start(name, pattern)
    file.seek(0)
    for part, state in zip((other[0], *other[2:]), torch.load(file), strict=True):
        part.load_state_dict(state)
    train(other, STEPS // 2)
    assert other[3].masks() == sparsifier.masks()
    for one, two in zip(model.parameters(), other[0].parameters(), strict=True):
        assert torch.equal(one, two)
