"""What each option of `workload` changes in a step, and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwsim import InputError
from sparse_train.workload import training_memory, workload


class Words(nn.Module):
    """Token ids to a loss."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(11, 8), nn.Linear(8, 4)

    def forward(self, ids):
        return self.linear(self.embedding(ids)).sum()


class Elsewhere(Words):
    """It computes with a weight that it also keeps where no parameter is looked for."""

    def __init__(self):
        super().__init__()
        self.also = [self.linear.weight]

    def forward(self, ids):
        return F.linear(self.embedding(ids), self.also[0]).sum()


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.inwards = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.inwards(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1).sum()


IDS = torch.zeros(2, 5, dtype=torch.int64)


@pytest.mark.parametrize("model", [Words, Elsewhere])
def test_a_step_is_named_by_its_model_and_needs_no_values(model):
    step = workload(model(), IDS)
    assert step.name == model.__name__ and not step.on_values
    (product,) = [op for op in step if op.kind == "gemm" and op.phase == "forward"]
    assert (product.name, product.m, product.weight_shape) == ("linear", 10, (4, 8))
    assert workload(model(), IDS, real=True).on_values


def test_a_type_is_that_of_floating_tensors_alone():
    for model, dtype, found in (
        (Words(), None, "float32"), (Words().double(), None, "float64"),
        (Words(), torch.bfloat16, "bfloat16"), (Words(), "float16", "float16"),
        (Words(), "tfloat32", "tfloat32"),
    ):  # fmt: skip
        step = workload(model, IDS, dtype=dtype)
        assert not step.on_values
        assert {op.dtype for op in step if op.kind == "gemm"} == {found}
        others = {op.dtype for op in step if op.kind not in ("gemm", "embedding")}
        assert others == {"float32" if found == "tfloat32" else found}


def test_attention_is_one_kernel_on_a_gpu_and_several_on_a_cpu():
    x = torch.ones(2, 3, 5, 8)
    fused = [op for op in workload(Attending(), x) if op.kind == "attention" and op.fused]
    assert {op.phase for op in fused} == {"forward", "grad_input"}
    on_cpu = workload(Attending(), x, machine="cpu")
    assert on_cpu.dense_flops != workload(Attending(), x).dense_flops


def test_an_optimizer_s_state_is_part_of_the_peak():
    without = workload(Words(), IDS, optimizer=None)
    assert training_memory(Words(), None).optimizer_bytes == 0
    assert not [op for op in without if op.phase == "update"]
    for name in ("sgd", "sgd_momentum", "adamw"):
        step, states = workload(Words(), IDS, optimizer=name), training_memory(Words(), name)
        assert step.peak_bytes - without.peak_bytes == states.optimizer_bytes
        assert [op for op in step if op.phase == "update"]
    assert states.parameter_bytes == states.gradient_bytes == 4 * (11 * 8 + 8 * 4 + 4)
    evaluated = workload(Words(), IDS, train=False)
    assert {op.phase for op in evaluated} == {"forward"}
    assert evaluated.peak_bytes < without.peak_bytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"machine": "tpu"}, "machine.*'tpu'.*gpu.*cpu"),
        ({"optimizer": "lion"}, "optimizer.*'lion'.*adamw"),
        ({"dtype": "int8"}, "dtype.*'int8'.*float32.*tfloat32.*amp-bf16"),
    ],
)
def test_what_is_allowed_is_said(options, message):
    with pytest.raises(InputError, match=message):
        workload(Words(), IDS, **options)
