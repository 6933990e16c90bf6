"""Every optimizer of pytorch_optimizer, and those of 8 bits: clean, or refused in one line."""

import functools
import importlib.util
import re

import pytest
import torch
import torch.distributed as dist
from torch import nn

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.algorithms.rigl import RigL
from sparse_train.masking.optimizer_state import fresh_values
from sparse_train.testing import check_optimizers, known_optimizers, maker

pytestmark = pytest.mark.filterwarnings("ignore")
torch.set_num_threads(1)
PACKAGE = "pytorch_optimizer"
THEIRS = {
    name.partition(".")[2]: kind
    for name, kind in known_optimizers().items()
    if name.startswith(PACKAGE)
}
ARGUMENTS = {"ranger21": {"num_iterations": 50}}
ALONE = "sees to weights itself, in the backward pass"
# Why no mask can lie on what they keep; from their sources.
REFUSED = {
    "alice": "mixed over the whole weight",  # in its own subspace
    "conda": "mixed over the whole weight",  # by the projector of its momentum
    "soap": "mixed over the whole weight",  # in the basis of Shampoo's factors
    "gravity": "with values of its own",  # a velocity that starts as noise
    "sara": "chooses weights itself",  # trains a share of the weights
    "spam": "chooses weights itself",  # likewise
    "flashadamw": "as torch.int8",
}
NOT_RUN = {
    "bsam": "raises in its own step, without masks too",
    "demo": "needs einops",
    "lomo": ALONE,
    "adalomo": ALONE,
}
# What a new parameter has where that is not 0; from their sources.
FRESH = {
    "adai": {"beta1_prod": 1.0},
    "dadaptadagrad": {"alpha_k": 1e-6, "x0": None},
    "vsgd": {"bg": 2e-8, "bhg": 6e-7},
    "yogi": {"exp_avg": 1e-6, "exp_avg_sq": 1e-6},
    "schedulefreeadamw": {"z": None},
    "madgrad": {"x0": None},
    "prodigy": {"p0": None},
}


@pytest.fixture
def one_rank():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(not THEIRS, reason=f"{PACKAGE} is not installed")
def test_the_lists_name_what_there_is():
    assert {*REFUSED, *NOT_RUN, *FRESH} <= set(THEIRS)
    assert len(THEIRS) > 100


@pytest.mark.parametrize("name", sorted(THEIRS) or ["none"])
def test_inactive_and_grown_weights_are_new_to_each_or_it_is_refused(name, one_rank):
    if name not in THEIRS:
        pytest.skip(f"{PACKAGE} is not installed")
    if name in NOT_RUN:
        pytest.skip(NOT_RUN[name])
    kind = functools.partial(THEIRS[name], **ARGUMENTS.get(name, {}))
    found = check_optimizers(maker(RigL()), {name: kind})[name]
    if name in REFUSED:
        assert found.startswith("optimizer: ") and "\n" not in found
        assert REFUSED[name] in found
    else:
        assert found == "clean"


@pytest.mark.parametrize("name", sorted(set(FRESH) & set(THEIRS)))
def test_what_a_new_parameter_has_is_what_their_sources_say(name):
    parameter = nn.Parameter(torch.randn(5, 7))
    found = fresh_values(THEIRS[name]([parameter]), parameter)
    other = {path: value for path, value in found.items() if value != 0.0}
    assert other == {
        path: value if value is None else pytest.approx(value)
        for path, value in FRESH[name].items()
    }


@pytest.mark.parametrize("name", [n for n, why in NOT_RUN.items() if why == ALONE and n in THEIRS])
def test_an_optimizer_that_steps_within_the_backward_pass_is_refused_in_one_line(name):
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = THEIRS[name](model)
    sparsifier = sparsify(model, optimizer, "rigl", 0.3)
    with pytest.raises(InputError, match=r"no torch\.optim\.Optimizer that holds it"):
        for _ in range(2):
            optimizer.fused_backward(model(torch.randn(4, 12)).square().mean(), lr=0.1)
            sparsifier.step()


def eight_bits():
    """(package, name of an optimizer of 8 or 4 bits), of those that may be installed."""
    names = {
        "bitsandbytes": ("AdamW8bit", "Lion8bit", "Adagrad8bit", "PagedAdamW8bit", "AdEMAMix8bit"),
        "torchao": ("AdamW8bit", "AdamW4bit", "AdamWFp8"),
    }
    return [(package, name) for package, kinds in names.items() for name in kinds]


def made(package, name, parameters, **settings):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    module = importlib.import_module(f"{package}.optim")
    return getattr(module, name)(parameters, lr=1e-3, **settings)


def wide():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))


@pytest.mark.parametrize(("package", "name"), eight_bits())
def test_codes_for_moments_are_refused_before_the_first_step_and_after_some(package, name):
    for steps in (0,) if package == "torchao" else (0, 2):  # torchao compiles for half a minute
        model = wide()
        optimizer = made(package, name, model.parameters())
        for _ in range(steps):
            model(torch.randn(4, 64)).square().mean().backward()
            optimizer.step()
        with pytest.raises(InputError, match=r"^optimizer: .* holds '.*' as ") as found:
            sparsify(model, optimizer, "rigl", 0.3)
        assert "32-bit form" in str(found.value) and "\n" not in str(found.value)


def test_a_size_that_stands_in_no_setting_is_seen_all_the_same():
    """The Trainer's adamw_bnb_8bit is bitsandbytes' AdamW with an argument that no group holds."""
    model = wide()
    optimizer = made("bitsandbytes", "AdamW", model.parameters(), optim_bits=8)
    with pytest.raises(InputError, match=r"AdamW holds 'state1' as torch\.uint8"):
        sparsify(model, optimizer, "rigl", 0.3)


@pytest.mark.parametrize("name", ["AdamW", "Lion", "AdEMAMix", "RMSprop", "LAMB"])
def test_their_32_bit_forms_are_clean(name):
    found = check_optimizers(
        maker(RigL()), {name: lambda parameters: made("bitsandbytes", name, parameters)}
    )
    assert re.fullmatch("clean", found[name])
