"""What strangers' optimizers keep of a weight: found by trying, wherever and however it is held."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.masking import optimizer_state

torch.set_num_threads(1)
KEPT = pytest.mark.parametrize("side", [9, 16])  # of a layer with 16 inputs: oblong and square


def net(side):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, side), nn.Tanh(), nn.Linear(side, 5))


class Strange(Optimizer):
    """SGD whose state is what a subclass makes of it; `lr` is its one setting."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.remember(self.state[p], p)
                    p.data.add_(p.grad, alpha=-group["lr"])


def train(optimizer, model, algorithm="rigl", steps=12, **options):
    """Trains; yields (layer, off or grown) after each step."""
    settings = {"density": 0.3, "update_interval": 3, "total_steps": 30, **options}
    sparsifier = sparsify(model, optimizer, algorithm, **settings)
    for step in range(steps):
        before = {n: layer.mask.clone() for n, layer in sparsifier.layers.items()}
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
        sparsifier.step()
        for name, layer in sparsifier.layers.items():
            yield layer, ~layer.mask | ~before[name]
    assert sparsifier.version >= 2


class Nested(Strange):
    def remember(self, state, p):
        inner = state.setdefault("of", {}).setdefault("each", [torch.zeros_like(p)])
        inner[0].mul_(0.9).add_(p.grad)


class Flat(Strange):
    def remember(self, state, p):
        state.setdefault("flat", torch.zeros(p.numel())).add_(p.grad.flatten())


class Two(Strange):
    def remember(self, state, p):
        state.setdefault("both", torch.zeros(2, *p.shape)).add_(p.grad)


class Drifts(Strange):
    """A product of decays for each weight, which begins at 1 and falls without a gradient too."""

    def remember(self, state, p):
        state.setdefault("decay", torch.ones_like(p)).mul_(0.9)


class Whole(Strange):
    """Each entry moves by what all the weight's entries do, and is one weight's all the same."""

    def remember(self, state, p):
        state.setdefault("push", torch.zeros_like(p)).add_(p.grad + p.grad.mean())


class Sampled(Strange):
    """An estimate from a number drawn for each weight, as Hutchinson's of a Hessian's diagonal."""

    def draw(self, p):
        return torch.randn_like(p)

    def remember(self, state, p):
        state.setdefault("estimate", torch.zeros_like(p)).add_(p.grad + self.draw(p).square())


class SampledInPlace(Sampled):
    def draw(self, p):
        return torch.empty(p.numel()).normal_().view_as(p)


class Rounded(Sampled):
    """Rounded up or down by chance, as states of few bits are: the draw hangs on the value."""

    def draw(self, p):
        return torch.bernoulli(p.sigmoid())


class Signs(Sampled):
    """Rademacher's signs, from a generator of the optimizer's own."""

    def draw(self, p):
        own = torch.Generator().manual_seed(3)
        return 1.5 + 2.0 * torch.randint(0, 2, p.shape, generator=own) - 1.0


def of(optimizer, layer):
    found = dict(optimizer_state.own(optimizer, layer.parameter))
    assert len(found) == 1
    return next(iter(found.values()))


@KEPT
@pytest.mark.parametrize(
    ("kind", "fresh"),
    [
        (Nested, 0.0), (Flat, 0.0), (Two, 0.0), (Drifts, 1.0), (Whole, 0.0), (Sampled, 0.0),
        (SampledInPlace, 0.0), (Rounded, 0.0), (Signs, 0.0),
    ],
)  # fmt: skip
def test_a_weight_that_is_not_trained_has_the_state_of_a_new_one(kind, fresh, side):
    model = net(side)
    optimizer = kind(model.parameters())
    for layer, off in train(optimizer, model):
        kept = of(optimizer, layer)
        assert torch.equal(kept[..., off], torch.full_like(kept[..., off], fresh))
        assert not torch.equal(kept[..., ~off], torch.full_like(kept[..., ~off], fresh))


class Sides(Strange):
    """Sums over a weight's rows and columns, one matrix each, as Shampoo's."""

    def remember(self, state, p):
        if p.ndim == 2:
            state.setdefault("rows", torch.zeros(p.shape[0], p.shape[0])).add_(p.grad @ p.grad.mT)
            state.setdefault("columns", torch.eye(p.shape[1])).add_(p.grad.mT @ p.grad)


@KEPT
def test_a_sides_matrix_belongs_to_no_weight_be_it_as_large_as_the_weight(side):
    one, other = net(side), net(side)
    ours, theirs = Sides(one.parameters()), Sides(other.parameters())
    gradients = [torch.randn(side, 16) for _ in range(6)]
    sparsifier = sparsify(one, ours, "set", 0.3, update_interval=2, total_steps=20)
    for gradient in gradients:
        masked = gradient * sparsifier.layers["0"].mask
        for model, optimizer in ((one, ours), (other, theirs)):
            optimizer.zero_grad()
            model[0].weight.grad = masked.clone()
            optimizer.step()
        sparsifier.step()
    for key, value in theirs.state[other[0].weight].items():
        assert torch.equal(ours.state[one[0].weight][key], value), key


class Rotated(Strange):
    """A momentum in the basis of the gradient's own sides."""

    def remember(self, state, p):
        if p.ndim == 2:
            rows = state.setdefault("gram", torch.zeros(p.shape[0], p.shape[0]))
            rows.add_(p.grad @ p.grad.mT)
            basis = torch.linalg.eigh(rows)[1]
            state.setdefault("turned", torch.zeros_like(p)).add_(basis.mT @ p.grad)


class Sketched(Strange):
    """A momentum seen through random vectors that all weights of a row share."""

    def remember(self, state, p):
        if p.ndim == 2:
            sketch = torch.randn(p.shape[1], 3)
            kept = state.setdefault("seen", torch.zeros_like(p))
            kept.add_(p.grad @ sketch @ sketch.mT)


class Chooses(Strange):
    def remember(self, state, p):
        state.setdefault("mask", torch.ones(p.shape, dtype=torch.bool))


class Noisy(Strange):
    def remember(self, state, p):
        if "noise" not in state:
            state["noise"] = torch.randn_like(p)


class Coded(Strange):
    def remember(self, state, p):
        if p.numel() >= 64:
            state["codes"] = torch.zeros_like(p, dtype=torch.int8)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (
            Rotated,
            r"Rotated keeps 'turned' mixed over the whole weight, or at random, so that no "
            "entry is one weight's own",
        ),
        (Sketched, r"Sketched keeps 'seen' mixed over the whole weight, or at random, so that no"),
        (Chooses, r"Chooses chooses weights itself \('mask'\)"),
        (Noisy, r"Noisy begins 'noise' with values of its own"),
        (Coded, r"Coded holds 'codes' as torch\.int8"),
    ],
)
def test_a_state_that_no_mask_can_lie_on_is_refused_before_the_first_step(kind, line):
    model = net(9)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=f"^optimizer: {line}.*; allowed"):
        sparsify(model, kind(model.parameters()), density=0.3)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_an_optimizer_that_is_made_later_is_refused_in_its_first_step():
    model = net(9)
    first = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsify(model, first, density=0.3)
    later = Chooses(model.parameters())
    model(torch.ones(2, 16)).sum().backward()
    with pytest.raises(InputError, match="Chooses chooses weights itself"):
        later.step()


class Averages(Strange):
    """Steps on z and keeps the mean, x = ½(x + z), as schedule-free optimizers do."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    z = self.state[p].setdefault("z", p.detach().clone())
                    z.add_(p.grad, alpha=-group["lr"])
                    p.data.add_(z).mul_(0.5)


def test_a_weight_that_begins_to_be_trained_is_not_drawn_to_where_it_never_was():
    """Top-KAST trains weights that hold values already: their z is that value, not 0."""
    model = net(9)
    optimizer = Averages(model.parameters())
    sparsifier = sparsify(model, optimizer, "top_kast", 0.3, update_interval=2, total_steps=20)
    torch.manual_seed(1)
    seen = 0
    for _ in range(8):
        before = {n: sparsifier.trained_mask(n).clone() for n in sparsifier.layers}
        optimizer.zero_grad()
        (model(torch.randn(8, 16)) - 1).square().mean().backward()
        optimizer.step()
        sparsifier.step()
        for name, layer in sparsifier.layers.items():
            gate = sparsifier.trained_mask(name)
            begun = gate & ~before[name]
            value = sparsifier._reserve.whole(layer)[begun]
            assert torch.equal(optimizer.state[layer.parameter]["z"][begun], value)
            seen += int(value.count_nonzero())
            assert not optimizer.state[layer.parameter]["z"][~gate].any()
    assert seen > 0


class Counted(Strange):
    """Takes an argument that is no setting of a group, and draws a random number in each step."""

    made = 0

    def __init__(self, params, weight, lr=0.05):
        super().__init__(params, lr)
        self.weight = weight
        self.log = []

    def remember(self, state, p):
        self.log.append(float(torch.rand(())))
        state.setdefault("sum", torch.full_like(p, self.weight)).add_(p.grad)


def test_trying_touches_neither_the_optimizer_nor_the_chance_nor_a_wrapped_step():
    model = net(9)
    optimizer = Counted(model.parameters(), 0.25)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)  # wraps optimizer.step
    torch.manual_seed(5)
    weights = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    fresh = optimizer_state.fresh_values(optimizer, model[0].weight)
    assert fresh == {"sum": 0.25}
    assert torch.equal(torch.get_rng_state(), state)
    assert optimizer.log == [] and not optimizer.state
    assert getattr(optimizer, "_opt_called", False) is False and scheduler.last_epoch == 0
    after = model.state_dict()
    assert all(torch.equal(weights[k], after[k]) for k in weights)


def test_what_a_new_weight_has_follows_the_learning_rate():
    model = net(9)
    optimizer = torch.optim.Rprop(model.parameters(), lr=0.01)
    weight = model[0].weight
    assert optimizer_state.fresh_values(optimizer, weight)["step_size"] == pytest.approx(0.01)
    optimizer.param_groups[0]["lr"] = 0.003
    assert optimizer_state.fresh_values(optimizer, weight)["step_size"] == pytest.approx(0.003)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (2, 2), (3, 2), (2, 3, 1, 1), (1, 9)])
def test_the_smallest_weights_are_tried_too(shape):
    parameter = nn.Parameter(torch.randn(shape))
    assert optimizer_state.fresh_values(Drifts([parameter]), parameter) == {"decay": 1.0}
    assert optimizer_state.fresh_values(Averages([parameter]), parameter) == {"z": None}
    assert optimizer_state.fresh_values(Flat([parameter]), parameter) == {"flat": 0.0}


def test_an_optimizer_without_a_learning_rate_trains():
    class Rateless(Nested):
        def __init__(self, params):
            Optimizer.__init__(self, params, {"rate": 0.05})

        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                self.remember(self.state[p], p)
                p.data.add_(p.grad, alpha=-0.05)

    model = net(9)
    assert list(train(Rateless(model.parameters()), model))


class SlowToo(Optimizer):
    """Looks ahead: a second copy of the weights goes after those of an optimizer within."""

    def __init__(self, inner):
        self.optimizer = inner
        super().__init__(inner.param_groups, {})

    def step(self, closure=None):
        self.optimizer.step()
        for group in self.param_groups:
            for p in group["params"]:
                slow = self.state[p].setdefault("slow", p.detach().clone())
                slow.add_(p.detach() - slow, alpha=0.5)
                p.data.copy_(slow)


@KEPT
def test_what_a_wrapper_keeps_of_weights_follows_them_too(side):
    model = net(side)
    optimizer = SlowToo(Nested(model.parameters()))
    for layer, off in train(optimizer, model):
        assert not optimizer.state[layer.parameter]["slow"][off].any()
        assert not of(optimizer.optimizer, layer)[..., off].any()
