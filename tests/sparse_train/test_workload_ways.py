"""The ways a step is observed: without data, on values, blocks once; and what each leaves alone."""

import importlib
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwsim import InputError, Mask
from sparse_train.workload import training_memory, workload
from tests.sparse_train._step_models import Cnn

torch.set_num_threads(1)
LARGEST_KEPT = 1 << 20


def products(step):
    return [(op.name, op.phase, op.m, op.n, op.k) for op in step if op.kind == "gemm"]


class Chosen(nn.Module):
    """It keeps the columns that a table of flags names, made while it runs or kept as a buffer."""

    def __init__(self, flags=None):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(2, 3, bias=False)
        self.register_buffer("flags", flags)

    def forward(self, x):
        flags = torch.tensor([True, False, True, False]) if self.flags is None else self.flags[:4]
        return self.second(self.first(x)[:, flags]).sum()


def test_tensors_made_on_the_way_have_values_though_meta_is_the_default():
    model, x = Chosen(), torch.ones(5, 4)
    expected = products(workload(model, x))
    with torch.device("meta"):
        step = workload(model, x)
        assert torch.get_default_device().type == "meta"
    assert not step.on_values and products(step) == expected
    with torch.device("meta"):
        without = Chosen()
    assert products(workload(without, x)) == expected


def test_buffers_of_a_model_without_data_have_none_either():
    with torch.device("meta"):
        model = Cnn()
    x = torch.zeros(2, 3, 9, 9)
    assert workload(model, x).digest == workload(Cnn(), x).digest


def test_floating_buffers_take_the_type_of_the_step():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.register_buffer("scale", torch.ones(4))

        def forward(self, x):
            return self.linear(x * self.scale).sum()

    for real in (False, True):
        step = workload(Scaled(), torch.ones(2, 4), dtype="bfloat16", real=real)
        assert {op.dtype for op in step} == {"bfloat16"}


@pytest.mark.parametrize(("more", "on_values"), [(0, False), (1, True)])
def test_integers_of_buffers_are_kept_up_to_a_size(more, on_values):
    flags = torch.arange(LARGEST_KEPT + more) % 2 == 0
    assert workload(Chosen(flags), torch.ones(5, 4)).on_values == on_values


def test_integers_of_the_batch_are_kept_whatever_their_size():
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 2)

        def forward(self, labels):
            return self.linear(labels[labels >= 0].float().unsqueeze(1)).sum()

    labels = torch.full((LARGEST_KEPT + 1,), -1)
    labels[:7] = 1
    step = workload(Kept(), labels)
    assert not step.on_values and {op.m for op in step if op.kind == "gemm"} == {7}


class Counted(nn.Module):
    calls = 0

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        Counted.calls += 1
        return x + torch.relu(self.linear(x))


@pytest.mark.parametrize(
    ("options", "calls"), [({}, 3), ({"real": True}, 6), ({"compiled": True}, 6)]
)
def test_equal_blocks_run_twice_beside_the_first_where_no_values_are_needed(options, calls):
    model, x = nn.Sequential(*(Counted() for _ in range(6))), torch.ones(3, 4)
    Counted.calls = 0
    step = workload(model, x, **options)
    assert Counted.calls == calls
    assert len(products(step)) == 6 * 3 - 1


def test_blocks_that_prove_unlike_are_observed_whole():
    """Three kinds of gradients come back to blocks of which two are kept."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            y = self.linear(x)
            return x + y, y * y

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Both() for _ in range(5))

        def forward(self, x):
            x, first = self.blocks[0](x)
            x, _ = self.blocks[1](x)
            _, second = self.blocks[2](x)
            x, third = self.blocks[3](x)
            x, _ = self.blocks[4](x)
            return (x + first + third).sum() + second.sum()

    step, real = (workload(Mixed(), torch.ones(3, 4), real=r) for r in (False, True))
    assert not step.on_values
    assert sorted(products(step)) == sorted(products(real))


class Compiles(nn.Module):
    """It compiles functions while it runs, or has them as they are."""

    def __init__(self, how):
        super().__init__()
        self.linear, self.how = nn.Linear(4, 3), how

    def forward(self, x):
        doubled = self.how(dynamic=True)(lambda y: 2 * y)
        return self.how(torch.relu)(doubled(self.linear(x))).sum()


def test_nothing_is_compiled_on_the_way(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("compiled")

    def as_it_is(function=None, **_):
        return function or (lambda given: given)

    x = torch.ones(2, 4)
    expected = [op.signature for op in workload(Compiles(as_it_is), x)]
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(torch, "compile", refused)
    late = Compiles(lambda *given, **options: torch.compile(*given, **options))
    assert [op.signature for op in workload(late, x)] == expected
    assert torch.compile is refused


def test_what_was_compiled_before_runs_as_it_was_written():
    importlib.import_module("torch._dynamo")
    compiled = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        @torch.compile(backend=lambda graph, _: compiled.append(graph) or graph.forward)
        def inner(self, x):
            return torch.relu(self.linear(x))

        def forward(self, x):
            return self.inner(x).sum()

    step = workload(Model(), torch.ones(2, 4))
    assert not compiled and not step.on_values
    assert [name for name, *_ in products(step)] == ["linear", "linear"]


def test_updates_are_of_what_is_trained_whatever_stands_before():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    model.scale = nn.Parameter(torch.ones(1))
    model.nothing = nn.Parameter(torch.empty(0))
    updates = {
        op.name: op.dense_flops
        for op in workload(model, torch.ones(5, 4))
        if op.kind == "optimizer"
    }
    assert updates == {"scale": 13, "0.bias": 39, "1": 78, "1.bias": 26}
    memory = training_memory(model)
    assert memory.parameter_bytes == 4 * (12 + 3 + 6 + 2 + 1)
    assert memory.gradient_bytes == 4 * (3 + 6 + 2 + 1)
    assert training_memory(model, None).optimizer_bytes == 0
    with pytest.raises(InputError, match="optimizer 'lion'"):
        training_memory(model, "lion")


class Parts(nn.Module):
    """It uses blocks of the rows of one parameter."""

    def __init__(self, *cuts):
        super().__init__()
        self.weight, self.cuts = nn.Parameter(torch.ones(12, 4)), cuts

    def forward(self, x):
        return sum(F.linear(x, self.weight[a:b]).sum() for a, b in self.cuts)


@pytest.mark.parametrize(
    ("cuts", "names"),
    [
        (((0, 2), (2, 6), (6, 12)), {"weight[0:2]": 8, "weight[2:6]": 16, "weight[6:12]": 24}),
        (((0, 2), (6, 12)), {"weight": 48}),
        (((0, 2), (2, 6)), {"weight": 48}),
        (((2, 6), (6, 12)), {"weight": 48}),
        (((0, 6), (2, 12)), {"weight": 48}),
        (((0, 12),), {"weight": 48}),
    ],
)
def test_a_parameter_is_updated_by_blocks_where_they_cover_it(cuts, names):
    step = workload(Parts(*cuts), torch.ones(3, 4))
    updates = {op.name: op.dense_flops for op in step if op.kind == "optimizer"}
    assert updates == {name: 13 * size for name, size in names.items()}


def test_grouped_and_transposed_layers_are_known_by_their_own_matrices():
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.grouped = nn.Conv1d(4, 6, 3, groups=2, bias=False)
            self.up = nn.ConvTranspose1d(6, 8, 2, bias=False)
            self.up_by_groups = nn.ConvTranspose1d(8, 4, 2, groups=2, bias=False)

        def forward(self, x):
            return self.up_by_groups(self.up(self.grouped(x))).sum()

    for real in (False, True):
        step = workload(Layers(), torch.ones(2, 4, 9), real=real)
        updates = {op.name: op.weight_shape for op in step if op.kind == "optimizer"}
        assert {name: a * b for name, (a, b) in updates.items()} == {
            "grouped": 36, "up": 96, "up_by_groups": 32,
        }  # fmt: skip
        assert updates == step.layers


class Conv1D(nn.Module):
    """As GPT-2 has it: inputs first; some keep their weight where no parameter is looked for."""

    def __init__(self, nx, nf, elsewhere):
        super().__init__()
        self.nx, self.nf = nx, nf
        self.weight, self.bias = nn.Parameter(torch.ones(nx, nf)), nn.Parameter(torch.ones(nf))
        self.kept = [self.weight] if elsewhere else []

    def forward(self, x):
        return torch.addmm(self.bias, x, *self.kept or [self.weight])


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_a_weight_that_is_stored_inputs_first_is_outputs_by_inputs(elsewhere, real):
    model = nn.Sequential(Conv1D(4, 6, elsewhere), nn.ReLU(), Conv1D(6, 3, elsewhere))
    step = workload(model, torch.ones(5, 4), real=real)
    assert step.layers == {"0": (6, 4), "2": (3, 6)}
    updates = [op for op in step if op.kind == "optimizer" and op.weight_shape]
    assert {op.name: op.weight_shape for op in updates} == step.layers


def test_a_model_that_looks_at_its_batch_needs_values():
    class Looks(nn.Linear):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else 2 * x).sum()

    assert workload(Looks(4, 3), torch.ones(2, 4)).on_values


def test_masks_of_layers_that_are_not_reached_are_listed():
    model = nn.Module()
    model.used, model.idle = nn.Linear(4, 3), nn.Linear(4, 3)
    model.forward = lambda x: model.used(x).sum()
    mask = Mask(np.eye(3, 4, dtype=bool))
    step = workload(model, torch.ones(2, 4), {"used": mask, "idle": mask})
    assert step.unmasked == ("idle",) and set(step.masks) == {"used"}


def test_an_evaluation_holds_weights_inputs_and_results():
    step = workload(nn.Linear(4, 2, bias=False), torch.ones(3, 4), train=False)
    assert step.peak_bytes == 4 * (8 + 12 + 6)


def refusal(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    return str(caught.value)


def test_what_cannot_be_observed_is_said_whole():
    x = torch.ones(2, 4)
    assert refusal(workload, nn.LazyLinear(3), x) == (
        "model: weight has no shape yet; run one batch through it first"
    )
    assert refusal(workload, nn.Linear(4, 3, device="meta"), x, real=True) == (
        "real: value is True, model is on 'meta'; allowed is a model with values"
    )
    assert refusal(workload, nn.Linear(4, 3), x, loss=lambda _: torch.zeros(())) == (
        "loss: depends on no parameter that is trained; allowed is one that does"
    )


@pytest.mark.parametrize(
    ("error", "shown"),
    [(RuntimeError("first line\nsecond"), "first line"), (RuntimeError(), "RuntimeError")],
)
def test_what_goes_wrong_in_a_model_without_values_is_one_line(error, shown):
    class Fails(nn.Linear):
        def forward(self, x):
            raise error

    assert refusal(workload, Fails(4, 3, device="meta"), torch.ones(2, 4)) == (
        f"model: Fails on 'meta' cannot be observed ({shown}); allowed is a model with values"
    )
    with pytest.raises(RuntimeError) as caught:
        workload(Fails(4, 3), torch.ones(2, 4))
    assert caught.value is error


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.RMSNorm(8)], ids=["dropout", "rms norm"])
def test_what_a_gpu_does_in_one_kernel_a_cpu_does_in_several(layer):
    def forward_ops(machine):
        step = workload(nn.Sequential(nn.Linear(8, 8), layer), torch.ones(3, 8), machine=machine)
        return [op for op in step if op.phase == "forward" and op.name.startswith(("0", "1"))]

    assert len(forward_ops("gpu")) == 2 < len(forward_ops("cpu"))


@pytest.mark.parametrize("name", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("given", [str, lambda name: f"torch.{name}", lambda n: getattr(torch, n)])
def test_a_type_is_taken_as_it_is_or_by_name(name, given):
    step = workload(nn.Linear(4, 3), torch.ones(2, 4), dtype=given(name))
    assert {op.dtype for op in step} == {name}


def test_a_type_that_is_none_is_told_all_that_are():
    assert refusal(workload, nn.Linear(4, 3), torch.ones(2, 4), dtype="int8") == (
        "unknown dtype 'int8' (valid: float64, float32, bfloat16, float16, tfloat32, amp-bf16, "
        "amp-fp16)"
    )
