"""Every family of models: each preset can be built without memory and observed."""

import pytest
import torch
from torch import nn

from hwsim.workload import PRODUCTS
from sparse_train import models
from sparse_train.workload import workload

torch.set_num_threads(1)
PARAMETERS = {  # published counts, where the model is the published one
    "mlp-mnist": 266_610,
    "resnet-18": 11_173_962,
    "vit-small": 22_050_664,
    "vit-base": 86_567_656,
    "vit-large": 304_326_632,
}


@pytest.mark.parametrize("name", [n for n in models.names() if not n.startswith("bert")])
def test_a_preset_is_built_without_memory_and_every_weight_is_seen(name):
    model, batch = models.build(name, 2, 16)
    assert all(p.is_meta for p in model.parameters())
    if name in PARAMETERS:
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    step = workload(model, batch)
    products = [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    used = {id(weight) for weight in products}
    # A weight that two layers share goes by its first name.
    weights = {n.removesuffix(".weight"): p for n, p in model.named_parameters() if id(p) in used}
    trained = {name for name, p in weights.items() if p.requires_grad}
    for phase, owners in (("forward", set(weights)), ("grad_weight", trained)):
        seen = {op.name for op in step.phase(phase) if op.kind in PRODUCTS and op.weight_shape}
        assert seen == owners


def test_flops_of_resnet18_are_the_known_ones():
    """0.56 billion multiply-adds for one image of CIFAR."""
    model, batch = models.build("resnet-18", 1)
    forward = workload(model, batch).phase("forward")
    flops = sum(op.dense_flops for op in forward if op.kind in PRODUCTS)
    assert flops == pytest.approx(2 * 0.556e9, rel=0.005)
