"""What a step is observed to be, whatever the machine that traces would run."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwsim import InputError
from sparse_train.observing.attention import pairs_of
from sparse_train.observing.operators import register_formula
from sparse_train.workload import workload


class Attention(nn.Module):
    def __init__(self, causal=False, dropout=0.0, bias=False, keys=None):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(16, 16)) if bias else None
        self.causal, self.dropout, self.keys = causal, dropout, keys

    def forward(self, x):
        q = x * self.scale
        k = q if self.keys is None else q[:, : self.keys]
        return F.scaled_dot_product_attention(
            q, k, k, self.bias, self.dropout, self.causal, enable_gqa=self.keys is not None
        )


def attention_ops(model, shape=(2, 4, 16, 8), **options):
    step = workload(model, torch.randn(shape, requires_grad=True), **options)
    return [op for op in step if op.kind == "attention"]


@pytest.mark.parametrize(
    "model",
    [Attention(), Attention(dropout=0.1), Attention(bias=True), Attention(keys=2)],
    ids=["plain", "dropout", "a bias that learns", "grouped queries"],
)
def test_attention_is_one_op_forward_and_one_backward(model):
    forward, backward = attention_ops(model)
    assert (forward.phase, backward.phase) == ("forward", "grad_input")
    assert forward.fused and backward.fused
    assert (forward.m, forward.n, forward.k, forward.count) == (16, 16, 8, 8)
    assert backward.dense_flops == 2.5 * forward.dense_flops


def test_causal_attention_does_the_pairs_up_to_the_diagonal():
    whole, causal = (attention_ops(Attention(causal=c))[0].dense_flops for c in (False, True))
    assert causal / whole == pytest.approx(17 / 32)
    assert pairs_of(4, 4, True) == 10 and pairs_of(6, 4, True) == 10 + 2 * 4


def test_real_tensors_give_the_same_ops_and_leave_gradients_right():
    fake, real = (attention_ops(Attention(causal=True), real=r) for r in (False, True))
    assert [op.signature for op in fake] == [op.signature for op in real]


def test_five_axes_have_no_fused_kernel():
    ops = attention_ops(Attention(), shape=(2, 3, 4, 16, 8))
    assert len(ops) == 6 and not any(op.fused for op in ops)


class Mixed(nn.Module):
    def __init__(self, autocast):
        super().__init__()
        self.linear, self.norm, self.autocast = nn.Linear(8, 8), nn.LayerNorm(8), autocast

    def forward(self, x):
        with torch.autocast("cuda", torch.bfloat16, enabled=self.autocast):
            return self.norm(self.linear(x)).sum()


def dtypes(step):
    return {(op.kind, op.phase): op.dtype for op in step if op.kind in ("gemm", "norm")}


def test_autocast_for_cuda_is_honoured_inside_the_model():
    found = dtypes(workload(Mixed(True), torch.randn(4, 8)))
    assert found["gemm", "forward"] == found["gemm", "grad_weight"] == "bfloat16"
    assert found["norm", "forward"] == "float32"
    assert dtypes(workload(Mixed(False), torch.randn(4, 8)))["gemm", "forward"] == "float32"


def test_amp_keeps_weights_and_moments_in_float32_and_pays_for_its_casts():
    plain, half = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), torch.randn(4, 8)
    step = workload(plain, half, dtype="amp-bf16")
    assert dtypes(step) == dtypes(workload(Mixed(True), half))
    assert {op.dtype for op in step if op.kind == "optimizer"} == {"float32"}
    assert len(step) > len(workload(plain, half))
    assert not torch.is_autocast_enabled("cpu")


def test_tf32_is_float32_with_other_products():
    step = workload(Mixed(False), torch.randn(4, 8), dtype="tfloat32")
    assert dtypes(step)["gemm", "forward"] == "tfloat32"
    assert dtypes(step)["norm", "forward"] == "float32"


def test_a_convolution_knows_its_window_and_layout():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8))
    x = torch.randn(2, 4, 12, 12)
    for layout, how in (("contiguous", torch.contiguous_format),
                        ("channels_last", torch.channels_last)):  # fmt: skip
        step = workload(model.to(memory_format=how), x.to(memory_format=how), train=False)
        convs = [op for op in step if op.kind == "conv"]
        assert [(op.window, op.count, op.n, op.layout) for op in convs] == [
            (9, 1, 8, layout), (9, 8, 1, layout),
        ]  # fmt: skip


def test_a_compiler_reads_and_writes_neighbours_once():
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Tanh(), nn.Linear(64, 64))
    x = torch.randn(32, 64)
    eager, compiled = (
        [op for op in workload(model, x, train=False, compiled=c) if op.kind == "elementwise"]
        for c in (False, True)
    )
    assert len(eager) == 2 and len(compiled) == 1 and compiled[0].fused
    assert compiled[0].bytes == 2 * 32 * 64 * 4 == sum(op.bytes for op in eager) / 2


def test_dropout_is_one_pass_with_a_byte_an_element_as_on_cuda():
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Dropout(0.1))
    step = workload(model, torch.randn(32, 64), optimizer=None)
    drop = [op for op in step if op.name == "1" and op.kind == "elementwise"]
    assert [op.phase for op in drop] == ["forward", "grad_input"]
    assert drop[0].bytes == 32 * 64 * (4 + 4 + 1)  # in, out, mask
    assert not [op for op in workload(model, torch.randn(32, 64), train=False) if op.name == "1"]


class Plain(nn.Module):
    def __init__(self, masked):
        super().__init__()
        self.mask = torch.zeros(16, 16) if masked else None

    def forward(self, q):
        scores = q @ q.transpose(-1, -2) / 4
        scores = scores if self.mask is None else scores + self.mask
        return scores.softmax(-1) @ q


@pytest.mark.parametrize("masked", [False, True])
def test_a_compiler_runs_plain_attention_by_the_fused_kernel(masked):
    q = torch.randn(2, 4, 16, 8)
    (op,) = workload(Plain(masked), q, train=False, compiled=True)
    assert op.kind == "attention" and op.fused
    assert (op.m, op.n, op.k, op.count) == (16, 16, 8, 8)
    assert op.dense_flops == 2 * 2 * 8 * 16 * 16 * 8
    assert op.bytes == 2 * q.numel() * 4 + masked * 16 * 16 * 4  # q once, the result, the mask


class Trained(nn.Module):
    """Attention as products between two linear layers."""

    def __init__(self, masked=False, drop=0.0, scaled=True):
        super().__init__()
        self.qkv, self.drop, self.scaled = nn.Linear(32, 96), nn.Dropout(drop), scaled
        self.mask = torch.zeros(16, 16) if masked else None

    def forward(self, x):
        q, k, v = (t.view(2, 16, 4, 8).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-1, -2)
        scores = scores / 4 if self.scaled else scores
        scores = scores if self.mask is None else scores + self.mask
        return self.drop(scores.softmax(-1)) @ v


@pytest.mark.parametrize("given", [{}, {"masked": True}, {"drop": 0.1}], ids=str)
def test_a_compiler_trains_plain_attention_by_two_fused_kernels(given):
    step = workload(Trained(**given), torch.randn(2, 16, 32), compiled=True)
    forward, backward = (op for op in step if op.kind == "attention")
    assert not [op for op in step if op.kind == "softmax"]
    assert forward.fused and backward.fused
    assert (forward.phase, backward.phase) == ("forward", "grad_input")
    pairs = 8 * 16 * 16
    assert forward.dense_flops == 4 * 8 * pairs and backward.dense_flops == 10 * 8 * pairs
    tensor = 8 * 16 * 8 * 4
    mask = 16 * 16 * 4 * ("masked" in given)
    # q, k, v and the result; then these, three gradients, and the result's, a sum's one number.
    assert (forward.bytes, backward.bytes) == (4 * tensor + mask, 7 * tensor + 4 + mask)


@pytest.mark.parametrize("given", [{"masked": True, "drop": 0.1}, {"scaled": False}], ids=str)
def test_attention_that_is_no_pattern_in_training_stays_products(given):
    step = workload(Trained(**given), torch.randn(2, 16, 32), compiled=True)
    assert len([op for op in step if op.kind == "attention"]) == 6
    assert not any(op.fused for op in step if op.kind == "attention")


def test_an_eager_step_trains_plain_attention_by_products():
    step = workload(Trained(), torch.randn(2, 16, 32))
    assert len([op for op in step if op.kind == "attention"]) == 6


def test_norms_and_softmaxes_of_rows_know_them_and_others_have_none():
    x = torch.randn(4, 6, 8, 8)
    rows = nn.Sequential(nn.LayerNorm((8, 8)), nn.Softmax(-1))
    others = nn.Sequential(nn.BatchNorm2d(6), nn.GroupNorm(2, 6), nn.Softmax(1))
    kinds = ("norm", "softmax")
    found = {(op.name, op.m, op.n) for op in workload(rows, x) if op.kind in kinds}
    assert found == {("0", 24, 64), ("1", 192, 8)}
    assert {(op.m, op.n) for op in workload(others, x) if op.kind in kinds} == {(0, 0)}


@pytest.mark.parametrize("real", [False, True])
def test_an_rms_norm_is_one_kernel_each_way_as_on_cuda(real):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.RMSNorm(32), nn.Linear(32, 8)

        def forward(self, x):
            y = self.norm(x)
            return self.linear(y if not real else y + y.sum().item())

    model, x = Normed(), torch.randn(4, 16, 32)
    norms = [op for op in workload(model, x) if op.name == "norm" and op.kind != "optimizer"]
    assert [(op.kind, op.phase, op.m, op.n) for op in norms] == [
        ("norm", "forward", 64, 32), ("norm", "grad_input", 64, 32),
    ]  # fmt: skip
    tensor, weight, roots = 64 * 32 * 4, 32 * 4, 64 * 4
    assert norms[0].bytes == 2 * tensor + weight + roots
    assert norms[1].bytes == 2 * tensor + 2 * weight + roots  # the batch has no gradient


def test_an_rms_norm_on_real_tensors_leaves_gradients_right():
    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(8, 8), nn.RMSNorm(8)

        def forward(self, x):
            y = self.norm(self.first(x))
            return y * (2.0 if y.sum().item() > -1e9 else 1.0)

    model, x = Looking(), torch.randn(4, 8)
    step = workload(model, x)
    assert step.on_values
    assert [op.phase for op in step if op.kind == "norm"] == ["forward", "grad_input"]
    assert all(p.grad is None for p in model.parameters())


def test_a_bilinear_gradient_has_a_thread_an_element():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Upsample(scale_factor=2, mode="bilinear"))
    step = [op for op in workload(model, torch.randn(2, 4, 8, 8)) if op.name == "1"]
    assert [(op.phase, op.m, op.n) for op in step] == [("forward", 8, 256), ("grad_input", 0, 0)]


class Positions(nn.Module):
    """Relative positions are added to scores whose queries were scaled before, or whose scale is
    learnt, or are looked up."""

    def __init__(self, how):
        super().__init__()
        self.how, self.scale = how, nn.Parameter(torch.ones(4, 1, 1))
        self.table = nn.Parameter(torch.zeros(4, 31))

    def forward(self, q):
        bias = self.scale.expand(4, 16, 16)
        if self.how == "looked up":
            bias = self.table[:, torch.arange(16)[:, None] - torch.arange(16) + 15]
        scores = (q / 4) @ q.transpose(-1, -2) if self.how == "before" else q @ q.transpose(-1, -2)
        if self.how != "before":
            scores = scores * (self.scale if self.how == "learnt" else 0.25)
        return (scores + bias).softmax(-1) @ q


@pytest.mark.parametrize("how", ["before", "learnt", "looked up"])
def test_scores_with_positions_are_no_fused_attention(how):
    ops = workload(Positions(how), torch.randn(2, 4, 16, 8), train=False, compiled=True)
    assert not any(op.fused for op in ops if op.kind == "attention")


def test_scores_that_are_read_elsewhere_are_no_fused_attention():
    class Shown(Plain):
        def forward(self, q):
            scores = (q @ q.transpose(-1, -2)).softmax(-1)
            return scores @ q, scores.sum()

    ops = workload(Shown(False), torch.randn(2, 4, 16, 8), train=False, compiled=True)
    assert not any(op.fused for op in ops if op.kind == "attention")


def test_what_another_op_reads_is_still_written():
    class Twice(nn.Module):
        def forward(self, x):
            y = x.tanh()
            return y.sigmoid() @ y

    (fused, product) = workload(Twice(), torch.randn(16, 16), train=False, compiled=True)
    assert product.kind == "gemm"
    assert fused.bytes == 3 * 16 * 16 * 4  # x in, both results out


@torch.library.custom_op("nettime_test::odd", mutates_args=())
def odd(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@odd.register_fake
def _(x):
    return torch.empty_like(x)


class Odd(nn.Module):
    def forward(self, x):
        return odd(x)


def test_an_operator_that_is_not_understood_is_named_with_its_bytes():
    step = workload(Odd(), torch.randn(8, 8), train=False)
    assert step.unknown == {"nettime_test::odd": 2 * 8 * 8 * 4}
    assert step.unknown_share == 1.0
    assert not workload(Mixed(False), torch.randn(4, 8)).unknown


def test_a_registered_formula_makes_an_operator_understood():
    register_formula("nettime_test::odd", lambda args, kwargs, out: 100 * out.numel())
    step = workload(Odd(), torch.randn(8, 8), train=False)
    assert not step.unknown and step.dense_flops == 6400
    with pytest.raises(InputError, match="allowed is 'namespace::name'"):
        register_formula("odd", len)


def test_peak_memory_holds_what_is_alive_at_once():
    model = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(4)))
    x = torch.randn(1024, 256)
    weights, batch = 4 * 256 * 256 * 4, 1024 * 256 * 4
    forward = workload(model, x, train=False).peak_bytes
    assert weights + 3 * batch <= forward <= weights + 4 * batch
    step = workload(model, x, optimizer="adam").peak_bytes
    assert step >= 4 * weights + 4 * batch  # weights, gradients, two moments; what backward needs


def test_an_update_is_one_kernel_or_many_together_or_one_by_one():
    def updates(optimizer):
        step = workload(nn.Linear(64, 64), torch.randn(8, 64), optimizer=optimizer)
        return [op for op in step if op.kind == "optimizer"]

    weights = 64 * 64 + 64
    fused, foreach, unfused = (updates(f"adamw{how}") for how in ("", "-foreach", "-unfused"))
    assert (len(fused), len(foreach), len(unfused)) == (2, 2, 2 * 8)
    assert sum(op.bytes for op in fused) == 7 * 4 * weights
    assert sum(op.bytes for op in foreach) == sum(op.bytes for op in unfused) == 20 * 4 * weights
    assert len({sum(op.dense_flops for op in u) for u in (fused, foreach, unfused)}) == 1
    assert [sum(op.bytes for op in updates(f"sgd{how}")) for how in ("", "-foreach")] == [
        3 * 4 * weights, 3 * 4 * weights,
    ]  # fmt: skip


def within(b, h, q, k):
    return (q >= k) & (q - k < 128)


class Flex(nn.Module):
    def __init__(self, call, mask):
        super().__init__()
        self.scale, self.call, self.mask = nn.Parameter(torch.ones(())), call, mask

    def forward(self, x):
        q = x * self.scale
        return self.call(q, q, q, block_mask=self.mask)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("compiled", [False, True])
def test_flex_attention_computes_the_blocks_of_its_window(compiled):
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    mask = flex.create_block_mask(within, None, None, 1024, 1024, device="cpu")
    call = torch.compile(flex.flex_attention) if compiled else flex.flex_attention
    forward, backward = attention_ops(Flex(call, mask), shape=(2, 4, 1024, 64))
    assert forward.fused and (forward.m, forward.n, forward.count) == (1024, 1024, 8)
    blocks = 8 + 7  # on the diagonal and left of it, of 64
    assert forward.dense_flops == 4 * 8 * blocks * 128 * 128 * 64
    assert backward.dense_flops == 2.5 * forward.dense_flops
    (whole, _) = attention_ops(Flex(call, None), shape=(2, 4, 1024, 64))
    assert whole.dense_flops == 4 * 8 * 1024 * 1024 * 64
