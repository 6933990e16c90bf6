"""Many networks at once: the same numbers as one by one, exact masks, moments that follow them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwsim import InputError
from sparse_train.population.feed import Feed
from sparse_train.population.train import AdamW, Population
from sparse_train.tasks import Prepared, make_task, stream

N = 3


class Blobs(Prepared):
    """Four inputs, three classes: the class is where the largest of three inputs is."""

    digest = "blobs"

    def build_model(self, model, preset, options):
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(),
                             nn.Linear(6, 3))  # fmt: skip

    def batch(self, step, batch_size, seed):
        x = stream(seed, step).standard_normal((batch_size, 4)).astype("float32")
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(x[:, :3].argmax(1))}

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    def evaluate(self, model, split="validation"):
        with torch.no_grad():
            return {"loss": float(self.loss(model, self.evaluation_batches(split)[0]))}

    def evaluation_batches(self, split="validation"):
        return [self.batch(1, 32, 1000)]

    def describe(self):
        return {}


def built(task, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return task.build_model("", "", {})


def population(size=N, **settings):
    task = Blobs()
    made = Population(task, built(task, 0), size, AdamW(**settings))
    models = [built(task, seed) for seed in range(size)]
    made.start(torch.arange(size), torch.stack([made.flat(m) for m in models]))
    return task, made, models


def train(made, steps, first=1, watch=False):
    feed = Feed(made.task, 5)
    seeds = range(made.size)
    for step in range(first, first + steps):
        made.step(feed(seeds, [step] * made.size), watch=watch)


def sparse(made, density, **options):
    nnz = (made.sizes * density).round().long().expand(made.size, -1)
    made.update(torch.arange(made.size), nnz, range(made.size), **options)
    return nnz


def test_dense_training_is_that_of_the_loop_one_by_one():
    task, made, models = population(lr=0.01, weight_decay=0.1)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.1) for m in models]
    train(made, 12)
    for seed, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
        for step in range(1, 13):
            optimizer.zero_grad()
            task.loss(model, task.batch(step, 5, seed)).backward()
            optimizer.step()
        torch.testing.assert_close(made.weights[seed], made.flat(model), atol=1e-5, rtol=1e-4)


def test_masked_training_is_that_of_the_loop_one_by_one():
    task, made, models = population(lr=0.01)
    train(made, 3, watch=True)
    sparse(made, 0.4)
    masks = [made.masks(row) for row in range(N)]
    train(made, 6, first=4)
    for seed, model in enumerate(models):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for step in range(1, 10):
            optimizer.zero_grad()
            task.loss(model, task.batch(step, 5, seed)).backward()
            for name, mask in masks[seed].items() if step > 3 else ():
                model.get_submodule(name).weight.grad *= torch.tensor(mask.array)
            optimizer.step()
            for name, mask in masks[seed].items() if step == 3 else ():
                weight = model.get_submodule(name).weight
                kept = torch.tensor(mask.array)
                weight.data *= kept
                for key in ("exp_avg", "exp_avg_sq"):
                    optimizer.state[weight][key] *= kept
        torch.testing.assert_close(made.weights[seed], made.flat(model), atol=1e-5, rtol=1e-4)


def test_sparse_layers_learn_at_the_rate_of_their_density():
    task, made, models = population(lr=0.01, density_power=1.0)
    sparse(made, 0.25)
    masks = made.masks(1)
    train(made, 4)
    model = models[1]
    weights = [model.get_submodule(name).weight for name in masks]
    others = [p for p in model.parameters() if all(p is not w for w in weights)]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "lr": 0.04, "weight_decay": 0.01 / 4}, {"params": others, "lr": 0.01}]
    )  # the decay is not scaled: it is lr · weight_decay in torch
    for step in range(1, 5):
        for weight, mask in zip(weights, masks.values(), strict=True):
            weight.data *= torch.tensor(mask.array)
        optimizer.zero_grad()
        task.loss(model, task.batch(step, 5, 1)).backward()
        for weight, mask in zip(weights, masks.values(), strict=True):
            weight.grad *= torch.tensor(mask.array)
        optimizer.step()
    torch.testing.assert_close(made.weights[1], made.flat(model), atol=1e-5, rtol=1e-4)


def test_a_network_does_not_depend_on_its_neighbours():
    _, made, _ = population()
    _, alone, _ = population(1)
    train(made, 4)
    train(alone, 4)
    torch.testing.assert_close(made.weights[0], alone.weights[0], atol=1e-6, rtol=1e-5)


def test_networks_that_are_not_stepped_stay_as_they_are():
    _, made, _ = population()
    before = made.take(torch.tensor([1]))
    which = torch.tensor([0, 2])
    made.step(Feed(made.task, 5)([0, 2], [1, 1]), which)
    after = made.take(torch.tensor([1]))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert made.steps.tolist() == [1, 0, 1]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=N, max_size=N),
    st.floats(0, 1),
    st.sampled_from(["magnitude", "random"]),
    st.sampled_from(["gradient", "random"]),
)
def test_every_network_has_exactly_its_own_number_of_weights(densities, fraction, drop, grow):
    _, made, _ = population()
    train(made, 2, watch=True)
    sparse(made, 0.5)
    train(made, 2, first=3, watch=True)
    nnz = (torch.tensor(densities) * made.sizes).round().long()
    options = {"drop_fraction": fraction, "drop": drop, "grow": grow}
    made.update(torch.arange(N), nnz, range(N), **options)
    train(made, 2, first=5)
    for row in range(N):
        assert [m.nnz for m in made.masks(row).values()] == nnz[row].tolist()
    off = made.mask == 0
    for values in (made.weights, made.first, made.second):
        assert not values[off].any()


def test_kept_weights_are_the_largest_and_grown_ones_start_at_zero():
    _, made, _ = population()
    train(made, 2, watch=True)
    before = made.weights.clone()
    sparse(made, 0.5)
    a, b = made.starts[0], made.ends[0]
    kept = made.mask[0, a:b].bool()
    assert before[0, a:b].abs()[kept].min() >= before[0, a:b].abs()[~kept].max()
    train(made, 2, first=3, watch=True)
    old = made.mask.bool()
    gradients = made.gradients.abs()
    sparse(made, 0.75)
    grown = made.mask.bool() & ~old
    assert grown[0, a:b].sum() == 8
    assert not made.weights[grown].any() and not made.first[grown].any()
    left = ~made.mask[0, a:b].bool()
    assert gradients[0, a:b][grown[0, a:b]].min() >= gradients[0, a:b][left].max()


def test_equal_scores_keep_the_first():
    _, made, _ = population(1)
    made.weights[:] = 1.0
    sparse(made, 0.5)
    a, b = made.starts[0], made.ends[0]
    assert made.mask[0, a:b].tolist() == [1] * 16 + [0] * 16


def test_the_same_number_of_weights_and_nothing_dropped_changes_nothing():
    _, made, _ = population()
    train(made, 2, watch=True)
    nnz = sparse(made, 0.3)
    before = made.state_dict()
    made.update(torch.arange(N), nnz, range(N))
    assert all(torch.equal(before[k], v) for k, v in made.state_dict().items())


def test_random_masks_depend_on_seed_and_step_alone():
    draws = []
    for size in (1, 3):
        _, made, _ = population(size)
        sparse(made, 0.3, drop="random", grow="random", drop_fraction=0.5)
        draws.append(made.mask[0])
    assert torch.equal(*draws)
    assert not torch.equal(made.mask[0], made.mask[1])


def test_gradient_masses_are_sums_over_what_would_be_active():
    _, made, _ = population(1)
    train(made, 2, watch=True)
    sparse(made, 0.5)
    train(made, 1, first=3, watch=True)
    a, b = made.starts[0], made.ends[0]
    w, g = made.weights[0, a:b].abs(), made.gradients[0, a:b].abs()
    mask = made.mask[0, a:b].bool()
    counts = torch.tensor([8, 16, 20, 32]).expand(1, 2, 4).clone()
    counts[0, 1] = 0
    masses = made.gradient_masses(torch.tensor([0]), counts)[0]
    fewer = w.masked_fill(~mask, -1).topk(8).indices
    more = g.masked_fill(mask, -1).topk(4).values.sum() + g[mask].sum()
    expected = [g[fewer].sum(), g[mask].sum(), more, g.sum()]
    torch.testing.assert_close(masses[0].float(), torch.stack(expected))
    assert masses[1].tolist() == [0, 0, 0, 0]


def test_saved_and_loaded_it_goes_on_to_the_bit():
    _, whole, _ = population()
    _, half, _ = population()
    for made in (whole, half):
        train(made, 2, watch=True)
        sparse(made, 0.5)
    _, rest, _ = population()
    rest.load_state_dict(half.state_dict())
    for made in (whole, rest):
        train(made, 2, first=3, watch=True)
        sparse(made, 0.6, drop_fraction=0.3)
        train(made, 2, first=5)
    found = rest.state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.state_dict().items())


def test_watching_sees_mean_and_variance_of_each_masked_layer():
    task, made, models = population()
    batch = task.batch(1, 5, 0)
    made.step({k: torch.stack([v] * N) for k, v in batch.items()}, watch=True)
    out = models[1][0](batch["x"])
    torch.testing.assert_close(made.activations[1, 0, 0], out.mean())
    torch.testing.assert_close(made.activations[1, 0, 1], out.var(correction=0))


def test_evaluation_is_that_of_each_network_by_itself():
    task, made, _ = population()
    train(made, 3, watch=True)
    sparse(made, 0.5)
    losses = made.evaluate(task.evaluation_batches())["loss"]
    alone = [task.evaluate(made.network(row))["loss"] for row in range(N)]
    torch.testing.assert_close(losses, torch.tensor(alone))


def test_the_feed_gives_the_tasks_own_batches_whatever_is_kept():
    task = Blobs()
    feed = Feed(task, 5, most_bytes=1)
    for seeds, steps in (([0, 1], [1, 40]), ([1, 0], [40, 1])):
        got = feed(seeds, steps)
        for i, (seed, step) in enumerate(zip(seeds, steps, strict=True)):
            assert torch.equal(got["x"][i], task.batch(step, 5, seed)["x"])


def test_a_transformer_on_text_trains_as_one_by_one(text_folder):
    options = {
        "text": str(text_folder),
        "vocabulary_size": 270,
        "tokens": 12,
        "evaluation_windows": 16,
    }
    task = make_task("mlm", options).prepare()

    def model(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return task.build_model("bert", "tiny",
                                    {"layers": 1, "width": 16, "heads": 2, "ffn": 32})  # fmt: skip

    # With a small eps Adam turns the rounding of a gradient near zero into a whole step.
    made = Population(task, model(0), 2, AdamW(eps=1e-4))
    models = [model(0), model(1)]
    made.start(torch.arange(2), torch.stack([made.flat(m) for m in models]))
    feed = Feed(task, 4)
    for step in range(1, 6):
        made.step(feed([0, 1], [step, step]))
    optimizer = torch.optim.AdamW(models[1].parameters(), lr=3e-3, eps=1e-4)
    for step in range(1, 6):
        optimizer.zero_grad()
        task.loss(models[1], task.batch(step, 4, 1)).backward()
        optimizer.step()
    torch.testing.assert_close(made.weights[1], made.flat(models[1]), atol=1e-4, rtol=1e-3)
    alone = task.evaluate(made.network(1))
    found = made.evaluate(task.evaluation_batches())
    for name in ("loss", "accuracy"):
        assert float(found[name][1]) == pytest.approx(alone[name], rel=1e-5)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda p: p.update(torch.tensor([0]), p.sizes[None] + 1, [0]), "nnz: values"),
        (lambda p: p.update(torch.tensor([0]), p.sizes[None], [0], drop="worst"), "drop criterion"),
        (lambda p: p.update(torch.tensor([0]), p.sizes[None], [0], grow="best"), "growth"),
        (lambda p: p.update(torch.tensor([0]), p.sizes[None], [0], drop_fraction=2.0), "drop_frac"),
        (lambda p: Population(p.task, built(p.task, 0), 0), "size: value is 0"),
        (lambda p: Population(p.task, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), 1),
         "running statistics"),
        (lambda p: Population(p.task, nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), 1),
         "no random numbers"),
        (lambda p: AdamW(lr=0.0), "lr: value is 0.0"),
        (lambda p: AdamW(density_power=2.0), "density_power: value is 2.0"),
        (lambda p: Feed(p.task, 0), "batch_size"),
        (lambda p: p.load_state_dict(population(2)[1].state_dict()), "allowed is"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, named):
    _, made, _ = population()
    with pytest.raises(InputError, match=named):
        call(made)
