"""Smaller models with the same outputs, from rows, columns and channels that are all zero."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwsim import InputError
from sparse_train.sparsify import sparsify
from sparse_train.structural import prune_structurally


def zero(module, rows=(), columns=()):
    with torch.no_grad():
        module.weight[list(rows)] = 0
        module.weight[:, list(columns)] = 0


def statistics(model, *batches):
    """Batch norms that have seen something, then evaluation."""
    model.train()
    for batch in batches:
        model(batch)
    return model.eval()


def same(model, batch, **tolerance):
    pruned = prune_structurally(model)
    torch.testing.assert_close(pruned.model(batch), model(batch), atol=2e-5, rtol=1e-4)
    return pruned


def test_neurons_of_zero_rows_and_of_unread_columns_leave():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))
    zero(model[0], rows=(1, 2))
    zero(model[2], columns=(7,), rows=(4,))
    pruned = same(model.eval(), torch.randn(9, 6))
    assert pruned.removed == {"0": 3, "2": 1}
    assert [tuple(m.weight.shape) for m in pruned.model if isinstance(m, nn.Linear)] == [
        (5, 6), (4, 5), (3, 4),
    ]  # fmt: skip
    assert (pruned.model[0].out_features, pruned.model[2].in_features) == (5, 5)
    assert pruned.parameters[1] < pruned.parameters[0]
    assert model[0].weight.shape == (8, 6)  # the given one is as it was
    assert "0: 3 channels removed" in str(pruned)


def test_a_row_that_leaves_takes_the_layer_before_with_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    zero(model[4], columns=(0, 1, 2))
    zero(model[2], columns=(0, 1))
    with torch.no_grad():  # inputs 2, 3 of the middle are read by neurons that nobody reads
        model[2].weight[3:, 2:4] = 0
    assert same(model.eval(), torch.randn(7, 4)).removed == {"2": 3, "0": 4}


class Net(nn.Module):
    def __init__(self, padding=0, bias=True):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 3, padding=padding)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6 * 9 if padding == 0 else 6 * 16, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.flatten(self.pool(self.second(x)), 1))


@pytest.mark.parametrize("bias", [True, False])
def test_channels_of_convolutions_with_batch_norm_leave(bias):
    torch.manual_seed(0)
    model = Net(bias=bias)
    zero(model.first, rows=(0, 5))
    zero(model.second, rows=(2,))
    with torch.no_grad():
        model.norm.bias.uniform_(-1, 1)
    statistics(model, torch.randn(4, 3, 8, 8))
    pruned = same(model, torch.randn(5, 3, 8, 8))
    assert pruned.removed == {"first": 2, "second": 1}
    assert pruned.model.norm.running_mean.shape == (6,)
    assert pruned.model.norm.num_features == 6
    assert pruned.model.head.weight.shape == (4, 5 * 9)


def test_constants_are_not_pushed_through_padding():
    torch.manual_seed(0)
    model = Net(padding=1)
    zero(model.first, rows=(0, 5))
    with torch.no_grad():
        model.norm.bias[0], model.norm.bias[5] = 3.0, -3.0  # after relu: 3, and 0
    statistics(model, torch.randn(4, 3, 8, 8))
    pruned = same(model, torch.randn(5, 3, 8, 8))
    assert pruned.removed == {"first": 1}
    assert "border" in pruned.kept["first"]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = self.norm(self.a(x))
        return x + self.c(torch.nn.functional.silu(self.b(x)))


def test_what_cannot_leave_is_said():
    torch.manual_seed(0)
    model = Residual().eval()
    for layer in (model.a, model.b, model.c):
        zero(layer, rows=(0,))
    pruned = same(model, torch.randn(5, 4))
    assert pruned.removed == {"b": 1}
    assert "norm may mix channels (1 of 4 rows are zero)" in pruned.kept["a"]
    assert "combines it with another value" in pruned.kept["c"]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.b.weight

    def forward(self, x):
        return self.tied(self.b(torch.relu(self.a(torch.relu(self.a(x))))))


def test_layers_used_twice_or_tied_stay():
    model = Twice().eval()
    zero(model.a, rows=(0,))
    zero(model.b, rows=(1,))
    pruned = same(model, torch.randn(3, 4))
    assert not pruned.removed and "more than once" in pruned.kept["a"]
    assert "shared" in pruned.kept["b"]


class Branching(nn.Module):
    """Its own code cannot be traced; the parts can."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else -self.inner(x)


def test_parts_of_models_that_cannot_be_traced_are_pruned():
    model = Branching().eval()
    zero(model.inner[0], rows=(0, 3))
    assert same(model, torch.randn(3, 4)).removed == {"inner.0": 2}


def test_a_layer_of_which_nothing_is_left_keeps_one_neuron():
    model = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3)).eval()
    zero(model[0], rows=range(6))
    pruned = same(model, torch.randn(3, 4))
    assert pruned.removed == {"0": 5} and pruned.model[0].out_features == 1


@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=6), st.floats(0, 1), st.booleans(),
    st.sampled_from([nn.ReLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus]), st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_any_chain_has_the_same_outputs_and_is_never_larger(sizes, share, bias, activation, seed):
    torch.manual_seed(seed)
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), nn.BatchNorm1d(b), activation()]
        with torch.no_grad():
            layers[-3].weight[torch.rand(b) < share] = 0
            layers[-3].weight[:, torch.rand(a) < share] = 0
    model = statistics(nn.Sequential(*layers), torch.randn(6, sizes[0]))
    pruned = same(model, torch.randn(5, sizes[0]))
    added = sum(sizes)  # biases that take constants over
    assert pruned.parameters[1] <= pruned.parameters[0] + added
    again = prune_structurally(pruned.model)
    assert sum(again.removed.values()) == 0


def test_a_sparse_model_by_neurons_gets_as_small_as_its_masks_say():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                          nn.Linear(16, 4))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters())
    sparsifier = sparsify(model, optimizer, algorithm="static", density=0.25, pattern="neuron")
    with pytest.raises(InputError, match="is a mask"):
        prune_structurally(model)
    pruned = prune_structurally(sparsifier)
    batch = torch.randn(5, 8)
    torch.testing.assert_close(pruned.model(batch), model(batch), atol=1e-5, rtol=1e-4)
    assert sum(pruned.removed.values()) > 0
    exported = torch.export.export(pruned.model.eval(), (batch,))
    torch.testing.assert_close(exported.module()(batch), pruned.model(batch))
    assert copy.deepcopy(pruned.model)(batch).shape == (5, 4)


def test_the_smaller_model_goes_through_torch_export(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    zero(model[0], rows=(0, 1))
    batch = torch.randn(3, 4)
    pruned = prune_structurally(model, batch).model
    torch.export.save(torch.export.export(pruned, (batch,)), tmp_path / "small.pt2")
    loaded = torch.export.load(tmp_path / "small.pt2")
    assert torch.equal(loaded.module()(batch), pruned(batch))
    assert torch.allclose(loaded.module()(batch), model(batch), rtol=1e-5, atol=1e-6)
    assert sum(t.numel() for t in loaded.state_dict.values()) < sum(
        p.numel() for p in model.parameters()
    )


def test_the_smaller_model_goes_to_onnx(tmp_path):
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnx and onnxscript")
    onnx = pytest.importorskip("onnx")
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    zero(model[0], rows=(0, 1))
    pruned = prune_structurally(model)
    batch = torch.randn(3, 4)
    torch.onnx.export(pruned.model, (batch,), tmp_path / "x.onnx", dynamo=True)
    made = onnx.load(tmp_path / "x.onnx")
    reference = pytest.importorskip("onnx.reference").ReferenceEvaluator(made)
    (answer,) = reference.run(None, {made.graph.input[0].name: batch.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(answer), model(batch), rtol=1e-5, atol=1e-6)
    shapes = {tuple(t.dims) for t in made.graph.initializer}
    assert shapes & {(4, 4), (2, 4), (4, 2)} and not shapes & {(6, 4), (4, 6)}


def test_layers_along_another_axis_are_not_taken_for_readers():
    for layers in (
        [nn.Linear(4, 6), nn.MaxPool1d(2), nn.Linear(3, 2)],
        [nn.Linear(4, 6), nn.Conv1d(6, 2, 1)],
        [nn.Conv1d(6, 6, 1), nn.Linear(6, 2)],
    ):
        model = nn.Sequential(*layers).eval()
        zero(model[0], rows=(0, 1))
        batch = torch.randn(2, 6, 4 if isinstance(model[0], nn.Linear) else 6)
        assert not same(model, batch).removed


def test_an_example_shows_what_the_graph_does_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    zero(model[0], rows=(0, 1))
    statistics(model, torch.randn(3, 6, 4))
    with torch.no_grad():
        model[1].bias.uniform_(1, 2)
    with pytest.raises((InputError, RuntimeError)):
        prune_structurally(model, torch.randn(3, 6, 4))
    assert prune_structurally(model, torch.randn(3, 4)).removed == {"0": 2}


@pytest.mark.parametrize("model", [None, 3, "bert"])
def test_other_things_are_refused(model):
    with pytest.raises(InputError, match="allowed is a torch module or a Sparsifier"):
        prune_structurally(model)
