"""A workload comes out for every model that sparsify accepts, with every mask where it acts."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from hwsim import InputError, Mask
from sparse_train import sparsify, workload
from tests.sparse_train.loops.test_resting import Experts

torch.set_num_threads(1)
X = torch.randn(5, 12)


def priced(model, batch=X, **options):
    sparsifier = sparsify(model, None, "static", 0.3, **options)
    return sparsifier.masks(), workload(model, batch, sparsifier.masks())


def masked(step):
    return {op.name for op in step.ops if op.mask is not None and op.phase == "forward"}


def test_layers_that_are_not_reached_cost_nothing_and_are_listed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.head = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.used(x))

    _, step = priced(Net())
    assert step.unmasked == ("unused",) and masked(step) == {"used"}
    assert not [op for op in step.ops if op.name == "unused" and op.phase != "update"]


def test_a_name_that_is_no_parameter_is_an_error():
    mask = Mask(np.ones((8, 12), bool))
    with pytest.raises(InputError, match=r"unknown layer|layer 'nowhere'"):
        workload(nn.Sequential(nn.Linear(12, 8)), X, {"nowhere": mask})


class Image(nn.Linear):
    def __init__(self, how):
        super().__init__(12, 8)
        self.how = how
        self.register_buffer("keep", torch.rand(8, 12) < 0.5)

    def forward(self, x):
        return F.linear(x, self.how(self.weight, self.keep), self.bias)


IMAGES = {
    "mask": lambda w, m: m * w,
    "float mask": lambda w, m: w * m.to(w.dtype),
    "where": lambda w, m: torch.where(m, w, 0.0),
    "standardised": lambda w, m: (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-5),
    "fake quantised": lambda w, m: torch.fake_quantize_per_tensor_affine(w, 0.1, 0, -127, 127),
    "norm": lambda w, m: F.layer_norm(w, (12,)),
    "turned": lambda w, m: (2 * w).t().contiguous().t(),
    "cast": lambda w, m: (w.to(torch.bfloat16).float() * m).clone(),
    "tanh": lambda w, m: torch.tanh(w),
}


@pytest.mark.parametrize("how", IMAGES)
def test_an_elementwise_image_of_a_weight_is_that_weight(how):
    model = nn.Sequential(Image(IMAGES[how]), nn.ReLU(), nn.Linear(8, 2))
    masks, step = priced(model)
    dense = workload(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2)), X, masks)
    of = lambda w: sorted(  # noqa: E731
        (op.phase, op.m, op.n, op.k, op.flops)
        for op in w.ops
        if op.kind == "gemm" and op.name == "0"
    )
    assert of(step) == of(dense) and step.unmasked == ()


def test_an_activation_of_a_weights_shape_is_no_weight():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.up, self.head = nn.Embedding(5, 12), nn.Linear(12, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.up(x + self.table.weight))

    _, step = priced(Net())
    assert masked(step) == {"up"} and set(step.layers) == {"up", "head"}


@pytest.mark.parametrize("make", ["spectral", "pruned", "standardised conv"])
def test_weights_that_torch_transforms_are_priced_under_their_mask(make):
    if make == "spectral":
        model, x = (
            nn.Sequential(parametrizations.spectral_norm(nn.Linear(12, 8)), nn.Linear(8, 2)),
            X,
        )
    elif make == "pruned":
        model, x = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 2)), X
        prune.random_unstructured(model[0], "weight", 0.5)
    else:

        class Standardised(nn.Conv2d):
            def forward(self, x):
                w = self.weight
                w = F.batch_norm(w.reshape(1, len(w), -1), None, None, training=True).reshape_as(w)
                return F.conv2d(x, w, self.bias)

        model = nn.Sequential(Standardised(3, 4, 3), nn.Flatten(), nn.Linear(64, 2))
        x = torch.randn(2, 3, 6, 6)
    masks, step = priced(model, x)
    assert set(masks) == {"0"} == masked(step)


def test_compiled_models_have_the_names_and_prices_of_their_modules():
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    compiled = torch.compile(model)
    sparsifier = sparsify(compiled, None, "static", 0.3)
    assert set(sparsifier.layers) == {"0"}
    one, other = (workload(m, X, sparsifier.masks()) for m in (model, compiled))
    assert [op.signature for op in one.ops] == [op.signature for op in other.ops]
    inside = nn.Sequential(torch.compile(nn.Linear(12, 8)), nn.Linear(8, 2))
    _, step = priced(inside)
    assert masked(step) == {"0"}


@dataclass
class Batch:
    x: torch.Tensor
    y: torch.Tensor
    name: str = "plain"


class Graph:
    """As torch_geometric's Data: clone() and apply(function) over all its tensors."""

    def __init__(self, x):
        self.x = x

    def clone(self):
        return Graph(self.x.clone())

    def apply(self, function):
        self.x = function(self.x)
        return self


class Flexible(nn.Module):
    def __init__(self, out):
        super().__init__()
        self.body, self.head, self.out = nn.Linear(12, 8), nn.Linear(8, 2), out

    def forward(self, batch, *, scale=1.0):
        x = batch if torch.is_tensor(batch) else batch.x
        return self.out(self.head(self.body(x)) * scale)


@dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple = ()


@pytest.mark.parametrize(
    "batch", [Batch(X, X), Graph(X), ((X,), {"scale": torch.ones(1)}), (X,), X, {"batch": X}]
)
@pytest.mark.parametrize(
    "out",
    [
        lambda y: OrderedDict(out=y, aux=y * 2),
        lambda y: Output(y, (y,)),
        lambda y: {"logits": [y, (y,)]},
    ],
)
def test_batches_and_outputs_may_be_anything(batch, out):
    _, step = priced(Flexible(out), batch)
    assert masked(step) == {"body"}
    assert {op.phase for op in step.ops if op.name == "head"} >= {"forward", "grad_weight"}


def test_experts_that_are_used_one_by_one_have_their_own_masks():
    model = Experts()
    masks, step = priced(model, ((torch.randn(5, 8), (0, 2)), {}), pattern="fan_in")
    assert masks["up[2]"].shape == (12, 8)
    used = {op.name: op.mask for op in step.ops if op.phase == "forward" and op.mask is not None}
    assert set(used) == {"up[0:12]", "up[24:36]", "down[0:8]", "down[16:24]"}
    assert used["up[24:36]"] == masks["up[2]"] and used["down[0:8]"] == masks["down[0]"]


class Grouped(nn.Module):
    """Two stacked products of four experts through grouped_mm, the second stored (in, out)."""

    def __init__(self):
        super().__init__()
        self.num_experts, self.hidden_size = 4, 16
        self.up = nn.Parameter(torch.randn(4, 32, 16, dtype=torch.bfloat16) / 4)
        self.down_proj = nn.Parameter(torch.randn(4, 32, 16, dtype=torch.bfloat16) / 4)
        self.is_transposed = None

    def forward(self, x):
        ends = torch.arange(1, 5, dtype=torch.int32) * (len(x) // 4)
        x = torch.nn.functional.grouped_mm(x, self.up.transpose(1, 2), offs=ends).relu()
        return torch.nn.functional.grouped_mm(x, self.down_proj, offs=ends).square()


@pytest.mark.parametrize("pattern", ["unstructured", "fan_in", "2:4"])
def test_experts_through_grouped_products_have_their_masks_in_one(pattern):
    model, x = Grouped(), torch.randn(64, 16, dtype=torch.bfloat16)
    options = {"density": 0.5, "pattern": pattern, "layers": "all"}
    masks = sparsify(model, None, "static", **options).masks()
    dense, step = workload(model, x), workload(model, x, masks)
    assert masks["up[3]"].shape == (32, 16) and masks["down_proj[3]"].shape == (16, 32)
    assert dense.dense_flops == step.dense_flops
    products = [op for op in step.ops if op.kind == "gemm"]
    assert {(op.m, op.n, op.k, op.count) for op in products} == {(16, 32, 16, 4), (16, 16, 32, 4)}
    assert {op.dense_flops for op in products} == {2 * 64 * 32 * 16}
    assert len(products) == 5  # the input has no gradient
    for op in products:
        parts = [masks[f"{op.name}[{expert}]"] for expert in range(4)]
        assert op.mask.nnz == sum(part.nnz for part in parts)
        assert op.flops == op.dense_flops * op.mask.nnz // op.mask.size
    assert not step.unmasked


def _complex():
    model = nn.Sequential(nn.Linear(12, 8))
    model[0].weight = nn.Parameter(torch.randn(8, 12, dtype=torch.complex64))
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.jit.script(nn.Sequential(nn.Linear(12, 8))), "scripted"),
        (lambda: nn.DataParallel(nn.Linear(12, 8)), "DataParallel"),
        (_complex, "torch.complex64"),
        (lambda: nn.Sequential(nn.Embedding(12, 8, sparse=True)), "sparse=True"),
    ],
)
def test_what_cannot_be_observed_is_refused_in_one_line(make, message):
    with pytest.raises(InputError, match=message) as caught:
        workload(make(), X)
    assert "\n" not in str(caught.value)
