"""Every algorithm and pattern through the kit that is shipped to users; planted bugs are caught."""

import pytest
import torch

from hwsim import InputError
from sparse_train import sparsify
from sparse_train.algorithms import ALGORITHMS
from sparse_train.algorithms.rigl import RigL
from sparse_train.testing import (
    check_algorithm,
    check_pattern,
    machine,
    small_model,
)

torch.set_num_threads(1)

PATTERNS = (
    "unstructured", "2:4", "n_m:1,4,0", "transposable_n_m", "fan_in", "balanced:4",
    "balanced:4,3", "group:3",
    "group:4,1", "block:2,3", "neuron", "neuron:1", "v_n_m:3,2,5",
)  # fmt: skip
GLOBAL = ("granet", "snfs", "growth_per_microsecond")


def goes(name, pattern):
    kind = ALGORITHMS.get(name)
    fixed = pattern in ("2:4", "n_m:1,4,0", "transposable_n_m", "v_n_m:3,2,5")
    if kind.patterns:
        return pattern.split(":")[0] in kind.patterns
    # Algorithms that start dense, or move weights between layers, have no fixed density.
    return not (fixed and (name in GLOBAL or kind.first_mask == "dense"))


PAIRS = [(a, p) for a in ALGORITHMS.names() for p in PATTERNS if goes(a, p)]
# Every algorithm under two patterns and every pattern under two algorithms; the rest is slow.
OWN = {name: (ALGORITHMS.get(name).patterns or ("unstructured",))[0] for name in ALGORITHMS.names()}
CHOSEN = [
    (name, pattern)
    for place, name in enumerate(ALGORITHMS.names())
    for pattern in {OWN[name], PATTERNS[place % len(PATTERNS)]}
    if goes(name, pattern)
] + [("rigl", pattern) for pattern in PATTERNS[1:]]
# Blocks change a layer's density at an update, and with it the pulls of Top-KAST.
CHOSEN.append(("top_kast", "block:2,3"))
CHOSEN = sorted(set(CHOSEN))
REST = sorted(set(PAIRS) - set(CHOSEN))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_keeps_its_laws(pattern):
    check_pattern(pattern, examples=60)


@pytest.mark.parametrize(("name", "pattern"), CHOSEN)
def test_an_algorithm_keeps_its_laws_under_a_pattern(name, pattern):
    check_algorithm(ALGORITHMS.get(name)(), pattern, examples=15)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pattern"), REST)
def test_every_algorithm_keeps_its_laws_under_every_pattern(name, pattern):
    check_algorithm(ALGORITHMS.get(name)(), pattern, examples=25)


@pytest.mark.parametrize("name", GLOBAL)
def test_a_pattern_of_fixed_density_is_refused_with_the_reason(name):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = sparsify(
        model, optimizer, name, 0.5, "2:4", "uniform", "constant", update_interval=1
    )
    model(torch.randn(4, 3, 7)).square().mean().backward()
    optimizer.step()
    with pytest.raises(InputError, match="fixes every layer's density"):
        sparsifier.step()


@pytest.mark.parametrize("name", ["srigl", "deep_r", "nest"])
def test_an_algorithm_with_a_pattern_of_its_own_refuses_others(name):
    with pytest.raises(InputError, match="does not go with"):
        sparsify(small_model(), None, name, pattern="block")


TestRigLMachine = machine(RigL()).TestCase
TestSRigLMachine = machine(ALGORITHMS.get("srigl")()).TestCase
TestTopKastMachine = machine(ALGORITHMS.get("top_kast")()).TestCase
TestSNFSMachine = machine(ALGORITHMS.get("snfs")()).TestCase
