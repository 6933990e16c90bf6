"""Recurrent layers as a GPU's library runs them."""

from collections import Counter

import pytest
import torch
from torch import nn

from hwsim import load_device
from sparse_train import workload

KINDS = {
    "lstm": lambda: nn.LSTM(16, 32, 2, batch_first=True),
    "gru both ways": lambda: nn.GRU(16, 32, 2, bidirectional=True),
    "rnn": lambda: nn.RNN(16, 32, nonlinearity="relu"),
}


class Recurrent(nn.Module):
    def __init__(self, layer, looked_at=False):
        super().__init__()
        self.layer, self.head, self.looked_at = layer, nn.LazyLinear(4), looked_at

    def forward(self, x):
        y, _ = self.layer(x)
        if self.looked_at and y.sum().item() < -1e9:
            y = -y
        return self.head(y)


def made(kind, **more):
    model, x = Recurrent(KINDS[kind](), **more), torch.randn(5, 7, 16)
    model(x)
    return model, x


def products(step):
    return Counter((op.name, op.phase, op.m, op.n, op.k) for op in step if op.kind == "gemm")


def test_inputs_are_one_product_and_states_one_a_step():
    model, x = made("lstm")
    found = products(workload(model, x))
    for layer, inputs in (("layer.weight_ih_l0", 16), ("layer.weight_ih_l1", 32)):
        assert found[layer, "forward", 35, 128, inputs] == 1
        assert found[layer, "grad_weight", 35, 128, inputs] == 1
    assert found["layer.weight_hh_l1", "forward", 5, 128, 32] == 7
    assert found["layer.weight_hh_l1", "grad_input", 5, 128, 32] == 6  # not of the first state
    assert found["layer.weight_hh_l1", "grad_weight", 35, 128, 32] == 1
    assert found["layer.weight_ih_l1", "grad_input", 35, 128, 32] == 1
    assert ("layer.weight_ih_l0", "grad_input", 35, 128, 16) not in found  # the batch learns not


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("looked_at", [False, True])
def test_forward_arithmetic_is_that_of_the_operators_it_is_made_of(kind, looked_at):
    model, x = made(kind, looked_at=looked_at)
    steps = [workload(model, x, train=False, machine=m) for m in ("gpu", "cpu")]
    assert steps[0].on_values == looked_at
    flops = [sum(op.dense_flops for op in s if op.kind == "gemm") for s in steps]
    assert flops[0] == flops[1]
    assert not steps[0].unknown


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_real_tensors_is_the_same_step(kind):
    fake, real = (workload(*made(kind, looked_at=r)) for r in (False, True))
    assert real.on_values and products(fake) == products(real)


def test_layers_are_masked_by_their_names():
    model, x = made("lstm")
    assert {"layer.weight_ih_l0", "layer.weight_hh_l1"} <= set(workload(model, x).layers)


def test_packed_sequences_are_left_as_they_are():
    class Packed(Recurrent):
        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(x, [7, 6, 5, 5, 3], batch_first=True)
            return self.head(self.layer(packed)[0].data)

    model, x = Packed(nn.LSTM(16, 32, batch_first=True)), torch.randn(5, 7, 16)
    model(x)
    assert any(op.kind == "gemm" for op in workload(model, x))


def test_fused_steps_are_some_times_faster_than_operators_one_by_one():
    model, x = made("lstm")
    device = load_device("a100")
    fused, apart = (device.estimate(workload(model, x, machine=m)).seconds for m in ("gpu", "cpu"))
    assert 2 * fused < apart
