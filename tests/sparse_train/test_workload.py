"""workload(): what is seen of a training step, held against torch's own counts."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import hwsim
from hwsim.workload import PRODUCTS
from sparse_train.models.bert import Bert, BertConfig, example
from sparse_train.workload import training_memory, workload

torch.set_num_threads(1)
BACKWARD = ("grad_input", "grad_weight")


def product_flops(step, *phases):
    return sum(
        op.dense_flops for op in step if op.kind in PRODUCTS and (not phases or op.phase in phases)
    )


def sizes(step, *names):
    return [(op.name, op.phase, op.m, op.n, op.k) for op in step if op.name in names and op.m]


def counted(model, run):
    """(forward, total) of torch's FlopCounterMode."""
    with FlopCounterMode(display=False) as forward:
        loss = run(model)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    model.zero_grad()
    return forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()


class PlainAttention(nn.Module):
    """Attention from its matrix products, without the fused operator."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1)
        )
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return x + self.out((scores @ v).transpose(1, 2).flatten(2))


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, groups=4), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, dilation=2), nn.GELU(),
            nn.ConvTranspose2d(16, 8, 2, stride=2), nn.ConvTranspose2d(8, 8, 3, groups=2),
        )  # fmt: skip
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Odd(nn.Module):
    """Tied weights, a reused module, functional linears, MultiheadAttention, recurrence."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(50, 16)
        self.twice = nn.Linear(16, 16)
        self.stored = nn.Parameter(torch.randn(16, 24))  # used as x @ W, not x @ Wᵀ
        self.left = nn.Parameter(torch.randn(16, 24))  # used as W @ x
        self.mha = nn.MultiheadAttention(16, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(16, 2, batch_first=True)
        self.rnn = nn.LSTM(16, 16, batch_first=True)
        self.frozen = nn.Linear(16, 16).requires_grad_(False)

    def forward(self, ids):
        x = self.tokens(ids)
        x = self.twice(F.relu(self.twice(x)))
        x = x + self.mha(x, x, x)[0]
        other = x.flip(1)
        x = x + self.cross(x, other, other)[0]
        x = self.frozen(self.rnn(x)[0])
        x = torch.einsum("bsi,oi->bso", x @ self.stored, self.left)
        x = (self.left @ (x @ self.stored).transpose(1, 2)).transpose(1, 2)
        return F.linear(x, self.tokens.weight)


def test_flops_of_bert_are_those_of_torch():
    config = BertConfig.preset("tiny", vocabulary=97, layers=2)
    model, batch = Bert(config), example(config, 2, 32)
    with sdpa_kernel(SDPBackend.MATH):
        forward, total = counted(model, lambda m: m(**batch).loss)
        step = workload(model, batch)
    assert (product_flops(step, "forward"), product_flops(step)) == (forward, total)


def test_fused_attention_costs_two_products_forward_and_five_backward():
    """torch's counter knows the fused operator of GPUs; that of the CPU it does not count."""
    q = torch.randn(2, 3, 5, 8, requires_grad=True)

    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            x = x * self.scale
            return F.scaled_dot_product_attention(x, x, x)

    step = workload(Fused(), q)
    one = 2 * 2 * 3 * 5 * 5 * 8
    assert product_flops(step, "forward") == 2 * one
    assert product_flops(step, "grad_input") == 5 * one


@pytest.mark.parametrize(
    ("make", "shape"),
    [(PlainAttention, (2, 7, 32)), (Cnn, (2, 3, 9, 9))],
    ids=["plain attention", "cnn"],
)
@pytest.mark.parametrize("real", [False, True])
def test_flops_are_those_of_torch(make, shape, real):
    model, x = make(), torch.randn(shape)
    forward, total = counted(model, lambda m: m(x).sum())
    step = workload(model, x, real=real)
    # torch counts grad_weight of a convolution with g groups as if it had one: g times too much.
    excess = sum(
        (op.count - 1) * op.dense_flops
        for op in step
        if op.kind == "conv" and op.phase == "grad_weight"
    )
    assert product_flops(step, "forward") == forward
    assert product_flops(step) == total - excess


def test_flops_of_an_odd_model_are_those_of_torch():
    model, ids = Odd(), torch.randint(0, 50, (2, 6))
    with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
        forward, total = counted(model, lambda m: m(ids).sum())
        step = workload(model, ids)
    assert product_flops(step, "forward") == forward
    assert product_flops(step) == total


def test_every_product_of_an_odd_model_has_its_layer_and_phases():
    step = workload(Odd(), torch.randint(0, 50, (2, 6)))
    phases = {}
    for op in step:
        if op.kind in PRODUCTS and op.weight_shape:
            assert (op.n, op.k) == op.weight_shape, op
            phases.setdefault(op.name, Counter())[op.phase] += 1
    assert phases["twice"] == {"forward": 2, "grad_input": 2, "grad_weight": 2}
    assert phases["tokens"] == {"forward": 1, "grad_input": 1, "grad_weight": 1}
    assert phases["mha.in_proj_weight"] == {"forward": 1, "grad_input": 1, "grad_weight": 1}
    assert phases["stored"] == {"forward": 2, "grad_input": 2, "grad_weight": 2}
    assert phases["left"] == {"forward": 2, "grad_input": 2, "grad_weight": 2}
    assert phases["frozen"] == {"forward": 1, "grad_input": 1}
    assert {"cross.in_proj_weight[0:16]", "cross.in_proj_weight[16:48]"} <= set(phases)
    assert {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "mha.out_proj"} <= set(phases)


def test_a_linear_layer_is_three_gemms_and_the_first_has_no_grad_input():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    products = [op for op in workload(model, torch.randn(4, 6)) if op.kind == "gemm"]
    expected = [
        hwsim.gemm(4, 8, 6, name="0"),
        hwsim.gemm(4, 3, 8, name="2"),
        hwsim.gemm(4, 3, 8, name="2", phase="grad_input"),
        hwsim.gemm(4, 3, 8, name="2", phase="grad_weight"),
        hwsim.gemm(4, 8, 6, name="0", phase="grad_weight"),
    ]
    assert Counter(map(repr, products)) == Counter(map(repr, expected))


@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    batch=st.integers(1, 9),
    bias=st.booleans(),
)
@settings(deadline=None, max_examples=25)
def test_flops_of_an_mlp_are_its_closed_form(widths, batch, bias):
    pairs = list(itertools.pairwise(widths))
    model = nn.Sequential(*(nn.Linear(k, n, bias=bias) for k, n in pairs))
    step = workload(model, torch.randn(batch, widths[0]))
    cost = [2 * batch * k * n for k, n in pairs]
    assert product_flops(step, "forward") == sum(cost)
    assert product_flops(step, "grad_weight") == sum(cost)
    assert product_flops(step, "grad_input") == sum(cost[1:])


@given(n=st.integers(2, 6))
@settings(deadline=None, max_examples=5)
def test_square_products_are_told_apart_by_what_they_read(n):
    """Batch, inputs and outputs of one size: no shape tells grad_input from grad_weight."""
    model = nn.Sequential(nn.Linear(n, n), nn.Linear(n, n).requires_grad_(False), nn.Linear(n, n))
    seen = Counter((op.name, op.phase) for op in workload(model, torch.randn(n, n)) if op.m)
    assert seen == {
        ("0", "forward"): 1, ("1", "forward"): 1, ("2", "forward"): 1, ("2", "grad_input"): 1,
        ("2", "grad_weight"): 1, ("1", "grad_input"): 1, ("0", "grad_weight"): 1,
    }  # fmt: skip


def test_an_input_that_wants_its_gradient_gets_grad_input():
    x = torch.randn(4, 6, requires_grad=True)
    assert ("", "grad_input") in {("", op.phase) for op in workload(nn.Linear(6, 3), x) if op.m}
    assert x.grad is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_counts_its_forward_pass_twice(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 8)

        def forward(self, x):
            return checkpoint(
                lambda y: self.second(F.relu(self.second(y))), self.first(x),
                use_reentrant=reentrant,
            )  # fmt: skip

    x = torch.randn(3, 4)
    seen = Counter((op.name, op.phase) for op in workload(Checkpointed(), x) if op.m)
    _, total = counted(Checkpointed(), lambda m: m(x).sum())
    assert product_flops(workload(Checkpointed(), x)) == total
    # torch may stop the second pass once it has what it needs.
    assert seen["second", "forward"] in (3, 4)
    assert seen["second", "grad_input"] == seen["second", "grad_weight"] == 2


def test_a_users_autograd_function_is_seen():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x @ w.t()

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return g @ w, g.t() @ x

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 6))
            self.before = nn.Linear(4, 6)

        def forward(self, x):
            return Product.apply(self.before(x), self.weight)

    seen = {op.phase: (op.m, op.n, op.k) for op in workload(Own(), torch.randn(3, 4))
            if op.name == "weight" and op.m}  # fmt: skip
    assert seen == dict.fromkeys(("forward", "grad_input", "grad_weight"), (3, 5, 6))


def test_cast_weights_are_still_the_layers():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))
    with torch.autocast("cpu", torch.bfloat16):
        step = workload(model, torch.randn(3, 6))
    assert {(op.name, op.dtype) for op in step if op.m} == {("0", "bfloat16"), ("1", "bfloat16")}
    assert {op.dtype for op in workload(model, torch.randn(3, 6), dtype="bfloat16")} == {"bfloat16"}


@pytest.mark.parametrize(
    ("name", "make", "states"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, 0.1), 0),
        ("sgd_momentum", lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), 1),
        ("adam", torch.optim.Adam, 2),
        ("adamw", torch.optim.AdamW, 2),
    ],
)
def test_memory_and_optimizer_traffic_are_those_of_torch(name, make, states):
    model, x = Cnn(), torch.randn(2, 3, 9, 9)
    optimizer = make(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    held = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    memory = training_memory(model, name)
    assert memory.parameter_bytes == memory.gradient_bytes == weights
    assert memory.optimizer_bytes == sum(t.numel() * t.element_size() for t in held)
    # Weight, gradient and states are read; weight and states are written.
    update = workload(model, x, optimizer=name).phase("update")
    assert update.bytes == (3 + 2 * states) * weights
    assert len(update) == len(list(model.parameters()))


@pytest.mark.parametrize(
    # Operations on one weight: sgd w − η·g; momentum μ·v + g as well; Adam: two moments (3 + 4),
    # root, sum, quotient and the step (5); AdamW: and its decay.
    ("name", "flops"),
    [("sgd", 2), ("sgd_momentum", 4), ("adam", 12), ("adamw", 13)],
)
def test_operations_of_an_optimizer_on_each_weight(name, flops):
    update = workload(nn.Linear(6, 8), torch.randn(3, 6), optimizer=name).phase("update")
    assert {op.name: op.dense_flops for op in update if op.kind == "optimizer"} == {
        op.name: flops * size for op, size in zip(update, (48, 8), strict=True)
    }


def test_masks_are_those_of_with_masks_and_reach_the_optimizer():
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), torch.randn(3, 6)
    mask = hwsim.Mask(np.arange(48).reshape(8, 6) % 3 == 0)
    step = workload(model, x, {"0": mask})
    assert step == workload(model, x).with_masks({"0": mask})
    assert step.digest == workload(model, x).with_masks({"0": mask}).digest
    dense = {(op.name, op.phase): op for op in workload(model, x) if op.weight_shape}
    for op in step:
        if op.name == "0" and op.kind in ("gemm", "optimizer"):
            assert 3 * op.flops == dense[op.name, op.phase].flops


def test_a_mask_of_a_whole_parameter_is_cut_up_where_blocks_are_used():
    rng = np.random.default_rng(0)
    mask = hwsim.Mask(rng.random((48, 16)) < 0.3)
    step = workload(Odd(), torch.randint(0, 50, (2, 6)), {"cross.in_proj_weight": mask})
    cut = step.masks
    assert sum(m.nnz for m in cut.values()) == mask.nnz
    assert cut["cross.in_proj_weight[16:48]"] == hwsim.Mask(mask.array[16:])
    updates = [op for op in step if op.kind == "optimizer" and op.mask is not None]
    assert len(updates) == 2


def test_the_model_and_random_streams_are_left_as_they_were():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(),
                          nn.Linear(16, 2))  # fmt: skip
    model[2].eval()
    x = torch.randn(2, 3, 4, 4)
    model(x).sum().backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [(p.grad, p.grad.clone()) for p in model.parameters()]
    flags = [m.training for m in model.modules()]
    for real in (False, True):
        streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        workload(model, x, real=real)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        for p, (same, value) in zip(model.parameters(), gradients, strict=True):
            assert p.grad is same
            assert torch.equal(p.grad, value)
        assert [m.training for m in model.modules()] == flags
        assert torch.equal(torch.get_rng_state(), streams[0])
        assert random.getstate() == streams[1]
        assert np.array_equal(np.random.get_state()[1], streams[2])  # noqa: NPY002


def test_a_recurrent_model_keeps_its_gradients():
    model = nn.LSTM(4, 4)
    workload(model, torch.randn(3, 2, 4), loss=lambda out: out[0].sum())
    assert all(p.grad is None for p in model.parameters())


def test_shapes_that_depend_on_integer_inputs_are_known_without_data():
    class Picks(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)

        def forward(self, ids, labels):
            keep = labels != -100
            return F.cross_entropy(self.head(self.tokens(ids)[keep]), labels[keep])

    ids, labels = torch.arange(8).view(2, 4), torch.tensor([[1, -100, 2, -100], [-100, 3, 4, 5]])
    with torch.device("meta"):
        model = Picks()
    assert sizes(workload(model, {"ids": ids, "labels": labels}), "head")[0][2] == 5


def test_a_model_that_looks_at_its_values_is_run_on_real_tensors():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x @ self.layer.weight

    assert sizes(workload(Looks(), torch.ones(3, 4)), "layer")
    with torch.device("meta"):
        model = Looks()
    with pytest.raises(hwsim.InputError, match="on 'meta' cannot be observed"):
        workload(model, torch.ones(3, 4))


def test_written_tensors_of_the_model_keep_their_gradients():
    class Fills(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            out = torch.zeros(3, 4)
            out[1:] = self.layer(x)[1:]
            return out

    seen = {op.phase for op in workload(Fills(), torch.randn(3, 4)) if op.m}
    assert seen == {"forward", "grad_weight"}


def test_evaluation_is_the_forward_pass_alone():
    step = workload(Cnn(), torch.randn(2, 3, 9, 9), train=False)
    assert {op.phase for op in step} == {"forward"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: workload("bert", x), "model: type is str"),
        (lambda m, x: workload(m, 3), "batch: type is int"),
        (lambda m, x: workload(m, x, optimizer="adamx"), "unknown optimizer 'adamx'.*valid: sgd"),
        (lambda m, x: workload(m, x, dtype="int3"), "unknown dtype"),
        (lambda m, x: workload(m, x, loss=lambda y: y), r"loss: is \(3, 2\)"),
        (lambda m, x: workload(m, x, {"": np.ones((2, 4))}), "allowed is hwsim.Mask"),
        (lambda m, x: workload(m, x, {"nope": hwsim.Mask(np.ones((2, 4), bool))}), "nope"),
        (lambda m, x: workload(m, x, {"weight": hwsim.Mask(np.ones((4, 2), bool))}),
         r"allowed is \(n, k\) = \(2, 4\)"),
        (lambda m, x: workload(m.requires_grad_(False), x), "no tensor with a gradient"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(hwsim.InputError, match=message) as caught:
        call(nn.Linear(4, 2), torch.randn(3, 4))
    assert "\n" not in str(caught.value)


def test_a_weight_that_is_masked_or_normalised_on_the_way_is_still_the_layers():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("keep", torch.ones(3, 4, dtype=torch.bool))

        def forward(self, x):
            return F.linear(x, self.layer.weight * self.keep, self.layer.bias)

    assert workload(Masked(), torch.randn(2, 4)).layers == {"layer": (3, 4)}
    normalised = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    step = workload(normalised, torch.randn(2, 4))
    assert set(step.layers.values()) == {(3, 4)}
    assert [op.phase for op in step if op.m] == ["forward", "grad_weight"]
