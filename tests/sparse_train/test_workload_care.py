"""Steps of models under masks, with values, in evaluation; the model is left as it was."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hwsim
from sparse_train.workload import workload
from tests.sparse_train._step_models import Cnn, Odd

torch.set_num_threads(1)


def sizes(step, *names):
    return [(op.name, op.phase, op.m, op.n, op.k) for op in step if op.name in names and op.m]


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


def test_small_integer_buffers_keep_their_values_and_need_no_real_step():
    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 4)
            self.register_buffer("kept", torch.tensor([True, False, True, False]))

        def forward(self, x):
            return self.linear(x)[:, self.kept].sum()

    step = workload(Chosen(), torch.ones(3, 8))
    assert not step.on_values
    assert any(op.name == "linear" and (op.m, op.n, op.k) == (3, 4, 8) for op in step)
