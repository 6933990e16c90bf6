"""Masks chosen where the weights are: the run is the host's to the bit, and little is copied."""

import copy

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.algorithms import ALGORITHMS
from sparse_train.algorithms.rigl import RigL
from sparse_train.masking.bits import zero_where_not_

torch.set_num_threads(1)
ABLE = [n for n in ALGORITHMS.names() if vars(ALGORITHMS.get(n)).get("on_device", False)]


class Experts(nn.Module):
    """Two stacked experts between a stored (in, out) matrix and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.num_experts = self.hidden_size = 2
        self.up = nn.Parameter(torch.randn(2, 12, 6) * 0.3)
        self.first = nn.ConvTranspose1d(4, 6, 1)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x[..., None])[..., 0]
        x = torch.einsum("bi,eoi->beo", x, self.up).relu()[..., :6].sum(1)
        return self.last(x)


def run(name, place, steps=8, model=None, **options):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Conv1d(4, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 12),
                                   nn.ReLU(), nn.Linear(12, 3))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparsifier = sparsify(
        model, optimizer, name, options.pop("density", 0.5), update_interval=2, total_steps=16,
        layers="all", choose_on=place, **options,
    )  # fmt: skip
    go_on(model, optimizer, sparsifier, steps)
    return model, optimizer, sparsifier


def go_on(model, optimizer, sparsifier, steps):
    for _ in range(steps):
        random = torch.Generator().manual_seed(sparsifier.steps)
        x = torch.randn(5, 4, generator=random)
        x = x[..., None] if isinstance(model, nn.Sequential) else x
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        sparsifier.step()


def bits(value):
    """Everything that a run holds, tensors as bytes."""
    if torch.is_tensor(value):
        return value.dtype, tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, (list, tuple)) else value


def held(model, optimizer, sparsifier):
    return bits([model.state_dict(), optimizer.state_dict(), sparsifier.state_dict()])


@pytest.mark.parametrize("name", ABLE)
def test_a_run_is_the_hosts_to_the_bit(name):
    host, device = run(name, "host"), run(name, "device")
    assert host[2].chosen_on == "host"
    assert device[2].chosen_on == "cpu"
    assert host[2].version == device[2].version
    assert held(*host) == held(*device)


@pytest.mark.parametrize(
    ("name", "pattern"), [("rigl", "fan_in"), ("set", "2:4"), ("gmp", "block:2,2"), ("rigl", None)]
)
def test_experts_and_stored_in_out_too(name, pattern):
    runs = [run(name, place, model=copy.deepcopy(EXPERTS), pattern=pattern)
            for place in ("host", "device")]  # fmt: skip
    assert runs[0][2].version
    assert held(*runs[0]) == held(*runs[1])


EXPERTS = Experts()


@pytest.mark.parametrize("name", ["lottery", "deep_r", "top_kast", "snfs"])
@pytest.mark.parametrize(("saved_on", "loaded_on"), [("host", "device"), ("device", "host")])
def test_what_was_saved_at_one_place_goes_on_at_the_other(name, saved_on, loaded_on):
    whole = run(name, saved_on, steps=12)
    model, optimizer, sparsifier = run(name, saved_on, steps=7)
    saved = copy.deepcopy([model.state_dict(), optimizer.state_dict(), sparsifier.state_dict()])
    other = run(name, loaded_on, steps=3)
    for one, state in zip(other, saved, strict=True):
        one.load_state_dict(state)
    go_on(*other, 5)
    assert held(*other) == held(*whole)
    go_on(*copy.deepcopy(other), 1)


class HostCopies(TorchFunctionMode):
    """Counts the floats and flags that leave tensors for the host; a single number is none."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.read = 0
        self.kinds = set()

    @property
    def numbers(self):
        return max(self.moved, self.read)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.__name__
        # Zeroing by bits is done in place, on integers: on a GPU it is torch's.
        kinds = (torch.float32, torch.float64, torch.bool)
        if name in ("numpy", "tolist", "__array__", "cpu", "to") and args[0].numel() > 1:
            size = args[0].numel() * (args[0].dtype in kinds)
            # Uploads go to a torch.device, which is the CPU here.
            to_host = "cpu" in [a for a in (*args[1:], *kwargs.values()) if isinstance(a, str)]
            leaves = name != "to" or to_host
            self.kinds |= {args[0].dtype} if leaves and size else set()
            self.moved += size * (name == "cpu" or (name == "to" and to_host))
            self.read += size * (name in ("numpy", "tolist", "__array__"))
        return func(*args, **kwargs)


@pytest.mark.parametrize("name", [name for name in ABLE if name != "growth_per_microsecond"])
def test_an_update_copies_no_weight_mask_or_gradient_to_the_host(name):
    counts = {}
    for place in ("host", "device"):
        model, optimizer, sparsifier = run(name, place, steps=1)
        with HostCopies() as copies:
            go_on(model, optimizer, sparsifier, 7)
        counts[place] = copies.numbers
    assert counts["device"] == 0
    assert counts["host"] >= 3 * sum(one.parameter.numel() for one in sparsifier.layers.values())


def test_masks_are_copied_where_they_are_priced_and_nothing_else_is():
    model, optimizer, sparsifier = run("growth_per_microsecond", "device", steps=1)
    size = sum(layer.parameter.numel() for layer in sparsifier.layers.values())
    with HostCopies() as copies:
        go_on(model, optimizer, sparsifier, 7)
    assert copies.kinds == {torch.bool}
    updates = sparsifier.plan.updates_until(8) - sparsifier.plan.updates_until(1)
    assert copies.numbers == 2 * updates * size  # each mask, and one with some more of its weights


def test_what_an_algorithm_does_not_ask_for_is_not_made():
    def counted(name):
        model, optimizer, sparsifier = run(name, "host", steps=1)
        with HostCopies() as copies:
            go_on(model, optimizer, sparsifier, 1)
        size = sum(layer.parameter.numel() for layer in sparsifier.layers.values())
        return copies.numbers / size

    # Masks alone; masks and weights; masks, weights and gradients.
    assert [counted(name) for name in ("static", "set", "rigl")] == [1, 2, 3]


def test_what_has_no_form_for_a_device_is_named():
    _, _, sparsifier = run("set", "device", steps=1, pattern="group:2")
    assert sparsifier.chosen_on == "host: group has no form for a device"
    assert "masks are chosen on host: group has no form" in sparsifier.summary()

    class Mine(RigL):
        """A subclass may answer in numpy: it is not taken for able until it says so."""

        def grow_scores(self, view, layer):
            return view.gradients[layer].copy() ** 2

    _, _, sparsifier = run(Mine(), "device", steps=4)
    assert sparsifier.chosen_on == "host: Mine has no form for a device"
    assert sparsifier.version


def test_a_place_that_is_not_known_is_refused():
    with pytest.raises(InputError, match=r"choose_on.*'gpu'.*auto, host, device"):
        run("set", "gpu")


def test_on_the_cpu_the_hosts_kernels_are_taken():
    assert run("rigl", "auto", steps=1)[2].chosen_on == "host"


def test_nothing_is_zeroed_by_way_of_the_host():
    values, mask = torch.ones(4), torch.tensor([True, False, True, False])
    with HostCopies() as copies:
        zero_where_not_(values, mask)
    assert copies.numbers == 0
    assert values.tolist() == [1, 0, 1, 0]
