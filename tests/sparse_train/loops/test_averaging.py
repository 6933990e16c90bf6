"""Averages are as sparse as their model."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hwsim import InputError
from sparse_train.averaging import SparseAverage, mask_average
from tests.sparse_train.loops._loops import made, net, plain

torch.set_num_threads(1)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_an_average_is_as_sparse_as_its_model_and_right_where_masks_stand(decay):
    model, optimizer, sparsifier = made()
    average = SparseAverage(sparsifier, decay)
    expected = None
    for step in range(14):
        plain(model, optimizer, sparsifier, 1, start=step)
        average.update()
        bias = model[0].bias.detach()
        if expected is None:
            expected = bias.clone()
        else:
            new = 1 / (step + 1) if decay is None else 1 - decay
            expected.lerp_(bias, new)
    for layer, name in ((average.model[0], "0"), (average.model[2], "2")):
        assert int((layer.weight != 0).sum()) <= sparsifier.masks()[name].nnz
        assert not layer.weight[~sparsifier.layers[name].mask].any()
    assert torch.allclose(average.model[0].bias, expected)
    assert set(average.model.state_dict()) == set(net().state_dict())
    other = SparseAverage(sparsifier, decay)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.model[0].weight, average.model[0].weight) and other.updates == 14


def test_the_average_of_another_tool_is_masked_too():
    model, optimizer, sparsifier = made()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(10):
        plain(model, optimizer, sparsifier, 1, start=step)
        average.update_parameters(model)
    assert average.module[0].weight[~sparsifier.layers["0"].mask].any()
    mask_average(average, sparsifier)
    for name in ("0", "2"):
        module, mask = average.module.get_submodule(name), sparsifier.layers[name].mask
        assert not module.weight[~mask].any() and torch.equal(module.weight_mask, mask)
    with pytest.raises(InputError, match="no layer '0'"):
        mask_average(torch.nn.Linear(2, 2), sparsifier)


def test_the_summary_names_every_weight():
    _, _, sparsifier = made()
    text = sparsifier.summary()
    assert "RigL, unstructured, step 0" in text and "not masked: 4 (output layer)" in text
    assert f"{sparsifier.masks()['0'].nnz}" in text.split("\n")[2]
