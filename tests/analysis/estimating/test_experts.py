"""Random masks of stacked experts reach the products of a step, on every device."""

import torch

from analysis.estimating import subject
from hwsim import device_names, load_device
from hwsim.devices.gpu import Gpu
from tests.sparse_train.loops.test_step_prices import Grouped


def test_random_masks_of_experts_reach_their_products():
    model, x = Grouped(), torch.randn(64, 16, dtype=torch.bfloat16)
    found = subject.of("grouped", model, x, layers="all")
    assert set(found.shapes) == {f"{n}[{e}]" for n in ("up", "down_proj") for e in range(4)}
    for made in (subject.random_masks, subject.statistical_masks):
        seed = (0,) if made is subject.random_masks else ()
        masks = made(found.shapes, 0.25, "unstructured", "uniform", *seed, found.step.layers)
        assert set(masks) == {"up", "down_proj"}
        sparse = found.step.with_masks(masks)
        assert sparse.flops < 0.3 * found.step.flops
        # A mask that was not drawn is for GPUs alone.
        drawn = made is subject.random_masks
        for name in device_names():
            device = load_device(name)
            if drawn or isinstance(device, Gpu):
                assert device.estimate(sparse).seconds > 0, name
