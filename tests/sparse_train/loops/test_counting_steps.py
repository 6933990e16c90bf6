"""One call of step() counts one step, whichever optimizer made it, and says so if none did."""

import pytest
import torch

from hwsim import InputError
from tests.sparse_train.loops._loops import loss_of, made, net, plain, same, whole


def scaled(model, optimizer, sparsifier, scaler, steps, bad=()):
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, step)
        if step in bad:
            loss = loss * float("inf")
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        sparsifier.step()


def scaler():
    return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10_000)


@pytest.mark.parametrize("algorithm", ["rigl", "set", "snfs", "top_kast"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_the_scaler_skips_is_not_counted(algorithm, fused):
    def start():
        make = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=fused)  # noqa: E731
        return made(make, algorithm)

    one, other = start(), start()
    plain(*one, 2)
    plain(*one, 7, start=3)
    scaled(*other, scaler(), 10, bad=(2,))
    assert other[2].steps == 9
    assert one[2].masks() == other[2].masks() and one[2].version == other[2].version
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_pushes_are_as_strong_under_a_scaler_of_a_fused_optimizer():
    from sparse_train.regularisers import L1

    def start():
        return made(lambda p: torch.optim.SGD(p, lr=0.1, fused=True), regulariser=L1(0.05))

    one, other = start(), start()
    plain(*one, 10)
    scaled(*other, scaler(), 10)
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation with an optimizer of its own inside."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"rho": 0.05, "lr": lr})
        self.base = torch.optim.SGD(self.param_groups, lr=lr)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["old"] = p.clone()
            p.add_(p.grad, alpha=0.05)
            p.grad = None

    @torch.no_grad()
    def second_step(self):
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p]["old"])
        self.base.step()

    def step(self, closure):
        closure = torch.enable_grad()(closure)
        closure()
        self.first_step()
        closure()
        self.second_step()


def test_sam_in_two_phases_counts_and_stays_sparse():
    model, optimizer, sparsifier = made(lambda p: SAM(p, 0.1))
    for step in range(12):
        loss_of(model, step).backward()
        optimizer.first_step()
        loss_of(model, step).backward()
        optimizer.second_step()
        model.zero_grad()
        sparsifier.step()
        whole(sparsifier)
    assert sparsifier.steps == 12 and sparsifier.version >= 3


def test_sam_with_a_closure_is_sam_in_two_phases():
    one, other = made(lambda p: SAM(p, 0.1)), made(lambda p: SAM(p, 0.1))
    for step in range(12):
        loss_of(one[0], step).backward()
        one[1].first_step()
        loss_of(one[0], step).backward()
        one[1].second_step()
        one[0].zero_grad()
        one[2].step()

        def closure(step=step):
            other[0].zero_grad()
            loss_of(other[0], step).backward()

        other[1].step(closure)
        other[2].step()
    same(one, other)


def test_an_optimizer_that_was_made_anew_goes_on():
    model, _, sparsifier = made()
    later = torch.optim.Adam(model.parameters(), lr=0.01)
    plain(model, later, sparsifier, 9)
    assert sparsifier.steps == 9 and sparsifier.version >= 2
    whole(sparsifier, later)


def test_an_optimizer_of_something_else_is_none_of_ours():
    _model, optimizer, sparsifier = made()
    other = net()
    foreign = torch.optim.SGD(other.parameters(), lr=0.1)
    loss_of(other, 0).backward()
    foreign.step()
    assert not sparsifier.step() and sparsifier.steps == 0
    assert sparsifier.optimizers == (optimizer,)


def test_weights_that_no_optimizer_moved_are_an_error_of_one_line():
    model, _, sparsifier = made()
    loss_of(model, 0).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad)
    with pytest.raises(InputError, match=r"layer '0' has changed, but no torch\.optim") as caught:
        sparsifier.step()
    assert "\n" not in str(caught.value)


def test_no_step_at_all_for_ever_is_an_error_too():
    _, _, sparsifier = made()
    with pytest.raises(InputError, match="no optimizer that holds a masked weight"):
        for _ in range(200):
            sparsifier.step()


def test_two_optimizers_are_one():
    def run(several):
        model = net()
        kinds = [model[0].parameters(), [*model[2].parameters(), *model[4].parameters()]]
        parts = kinds if several else [model.parameters()]
        optimizers = [torch.optim.SGD(p, lr=0.1, momentum=0.9) for p in parts]
        _, _, sparsifier = made(optimizers, "top_kast", model)
        for step in range(12):
            model.zero_grad()
            loss_of(model, step).backward()
            for optimizer in optimizers:
                optimizer.step()
            sparsifier.step()
        assert sparsifier.steps == 12
        return model, optimizers, sparsifier

    same(run(True), run(False))
