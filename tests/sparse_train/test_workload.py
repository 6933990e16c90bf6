"""workload(): what is seen of a training step, held against torch's own counts."""

import itertools
from collections import Counter

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
from tests.sparse_train._step_models import Cnn, Odd

torch.set_num_threads(1)
BACKWARD = ("grad_input", "grad_weight")


def product_flops(step, *phases):
    return sum(
        op.dense_flops for op in step if op.kind in PRODUCTS and (not phases or op.phase in phases)
    )


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
