"""What devices keep does not grow with what they were asked."""

import copy
import pickle

import pytest

from hwsim import gemm, load_device
from hwsim.bounded import BoundedDict


@pytest.mark.parametrize("again", [lambda d: d, copy.copy, lambda d: pickle.loads(pickle.dumps(d))])
def test_the_first_in_goes_first_also_in_a_copy(again):
    known = BoundedDict(3)
    for i in range(10):
        known[i] = -i
    known = again(known)
    known[10] = 0
    assert list(known) == [8, 9, 10] and known[9] == -9


@pytest.mark.parametrize("name", ["ideal", "sigma-like", "systolic", "wafer"])
def test_a_device_forgets_and_says_the_same_again(name):
    device = load_device(name)
    first = [device.estimate(gemm(m, 24, 40, phase="grad_weight")) for m in range(1, 20)]
    for m in range(20, 4200):
        device.estimate(gemm(m, 8, 8))
    held = [v for v in vars(device).values() if isinstance(v, BoundedDict)]
    assert held and all(len(v) <= v.most for v in held)
    assert first == [device.estimate(gemm(m, 24, 40, phase="grad_weight")) for m in range(1, 20)]
