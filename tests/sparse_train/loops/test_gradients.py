"""Growth and pushes use the gradient that the optimizer's step saw, and no other."""

import copy

import pytest
import torch
from torch.func import functional_call, grad

from sparse_train.regularisers import L1
from tests.sparse_train.loops._loops import batch, loss_of, made, net, plain, same, whole

ALGORITHMS = ("rigl", "set", "snfs", "srigl", "top_kast", "sr_ste", "granet")


def with_closures(model, optimizer, sparsifier, steps, after=lambda: None):
    for step in range(steps):

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(model, step)
            loss.backward()
            after()
            return loss

        optimizer.step(closure)
        sparsifier.step()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_closure_is_the_plain_loop_to_the_bit(algorithm):
    settings = {"sr_ste": {"density": 0.5, "distribution": "uniform"}}.get(algorithm, {})
    one, other = made(algorithm=algorithm, **settings), made(algorithm=algorithm, **settings)
    plain(*one, 20)
    with_closures(*other, 20)
    same(one, other)
    assert one[2].version >= 1


@pytest.mark.parametrize("options", [{"replace_step": True}, {"regulariser": L1(0.01)}])
def test_what_is_done_before_a_step_is_done_after_the_closure(options):
    one, other = made(**options), made(**options)
    plain(*one, 12)
    with_closures(*other, 12)
    same(one, other)
    bare = made()
    plain(*bare, 12)
    assert not torch.equal(bare[0][0].weight, one[0][0].weight)


def test_lbfgs_evaluates_its_closure_many_times_and_stays_sparse():
    model, optimizer, sparsifier = made(lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4))
    before = float(loss_of(model, 0))
    with_closures(model, optimizer, sparsifier, 9)
    whole(sparsifier)
    assert sparsifier.version >= 2 and float(loss_of(model, 0)) < before


def seen(sparsifier):
    """What updates see, noted."""
    noted = []
    update = type(sparsifier.algorithm).update

    class Noting(type(sparsifier.algorithm)):
        def update(self, view, state):
            noted.append({n: g.copy() for n, g in view.gradients.items()})
            return update(self, view, state)

    sparsifier.algorithm = Noting()
    return noted


def dense_gradient(model, step):
    twin = copy.deepcopy(model)
    twin.zero_grad()
    loss_of(twin, step).backward()
    return {"0": twin[0].weight.grad.numpy(), "2": twin[2].weight.grad.numpy()}


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("bad", [1.0, float("nan")])
def test_a_gradient_that_was_thrown_away_does_not_count(to_none, bad):
    model, optimizer, sparsifier = made(update_interval=1)
    noted = seen(sparsifier)
    (loss_of(model, 7) * bad).backward()
    optimizer.zero_grad(set_to_none=to_none)
    loss_of(model, 0).backward()
    expected = dense_gradient(model, 0)
    optimizer.step()
    assert sparsifier.step()
    for name, value in expected.items():
        assert (noted[0][name] == value).all()


@pytest.mark.parametrize("to_none", [True, False])
def test_a_step_without_any_gradient_changes_no_mask(to_none):
    model, optimizer, sparsifier = made(update_interval=1)
    loss_of(model, 0).backward()
    optimizer.step()
    sparsifier.step()
    masks = sparsifier.masks()
    loss_of(model, 1).backward()
    optimizer.zero_grad(set_to_none=to_none)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    optimizer.step()
    assert not sparsifier.step() and sparsifier.masks() == masks


def test_all_passes_of_a_step_are_summed_and_clipping_changes_no_choice():
    model, optimizer, sparsifier = made(update_interval=1)
    noted = seen(sparsifier)
    one, two = dense_gradient(model, 0), dense_gradient(model, 1)
    loss_of(model, 0).backward()
    loss_of(model, 1).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimizer.step()
    sparsifier.step()
    for name in one:
        summed = one[name] + two[name]
        factor = abs(noted[0][name]).max() / abs(summed).max()
        assert noted[0][name] == pytest.approx(factor * summed, rel=1e-3, abs=1e-9)
        assert 0 < factor < 0.1


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_gradients_of_torch_func_grow_and_leave_no_moment_behind(optimizer):
    model, optimizer, sparsifier = made(lambda p: optimizer(p, lr=0.01), update_interval=2)
    twin = made(lambda p: type(optimizer)(p, lr=0.01), update_interval=2)
    for step in range(9):
        parameters = dict(model.named_parameters())
        found = grad(
            lambda p, x: (functional_call(model, p, (x,)) - 1).square().mean()
        )({n: p.detach() for n, p in parameters.items()}, batch(step))  # fmt: skip
        for name, parameter in parameters.items():
            parameter.grad = found[name].clone()
        optimizer.step()
        sparsifier.step()
        whole(sparsifier, optimizer)
    plain(*twin, 9)
    assert sparsifier.version >= 3
    same((model, optimizer, sparsifier), twin)


def test_what_is_added_to_a_gradient_later_is_seen_and_leaves_no_moment():
    model, optimizer, sparsifier = made(update_interval=1)
    noted = seen(sparsifier)
    expected = dense_gradient(model, 0)
    loss_of(model, 0).backward()
    noise = torch.randn(16, 12) * 1e-2
    model[0].weight.grad.add_(noise)
    optimizer.step()
    sparsifier.step()
    assert noted[0]["0"] == pytest.approx(expected["0"] + noise.numpy(), abs=1e-6)
    whole(sparsifier, optimizer)


def test_a_regulariser_pushes_once_however_many_optimizers_there_are():
    def run(several):
        model = net()
        parts = [model[0].parameters(), model[2].parameters(), model[4].parameters()]
        if several:
            optimizers = [torch.optim.SGD(p, lr=0.1) for p in parts]
        else:
            optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)]
        _, _, sparsifier = made(optimizers, model=model, regulariser=L1(0.05))
        for step in range(12):
            model.zero_grad()
            loss_of(model, step).backward()
            for optimizer in optimizers:
                optimizer.step()
            sparsifier.step()
        return model, optimizers, sparsifier

    same(run(True), run(False))
