import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hwsim import InputError, Mask
from hwsim.patterns import pattern
from sparse_train import sparsify
from sparse_train.masking.figures import (
    Explored,
    footprint,
    operations,
    run_figures,
    training_flops,
)
from sparse_train.testing import small_model, train_step

OTHER = json.loads((Path(__file__).parents[2] / "data" / "other_algorithms.json").read_text())


def test_itop_rates_are_those_of_the_reference():
    case = OTHER["itop_rate"][0]
    explored = Explored()
    for step in case["sequence"]:
        explored.add(
            {
                name: Mask(np.array(bits, dtype=bool).reshape(case["shapes"][name]))
                for name, bits in step["masks"].items()
            }
        )
        assert explored.layer_rates == pytest.approx(step["layer_rs"])
        assert explored.rate == pytest.approx(step["total_rs"], abs=1e-12)


def test_nothing_is_explored_before_the_first_mask():
    assert Explored().rate == 0.0


@pytest.mark.parametrize("row", OTHER["flops"]["rows"], ids=lambda r: f"{r['op']}-{r['sparsity']}")
def test_operations_are_those_of_the_micronet_counting(row):
    if row["op"].startswith("Fully"):
        shape, positions = tuple(reversed(row["kernel"])), 1
    else:
        height, width, n_in, n_out = row["kernel_hwio"]
        if row["op"].startswith("Depth"):
            n_in, n_out = 1, n_in
        shape = (n_out, n_in, height, width)
        positions = math.prod(-(-row["input_size"] // s) for s in row["stride"])
    found = operations(shape, 1 - row["sparsity"], positions)
    expected = row["param_bits,mults,adds"]
    assert [found.parameter_bits, found.multiplications, found.additions] == pytest.approx(expected)


def test_training_flops_are_the_published_formulas():
    f_s, f_d = 7.0, 50.0
    assert training_flops("dense", f_s, f_d) == 150
    assert training_flops("never", f_s, f_d) == 21
    assert training_flops("always", f_s, f_d) == 64
    assert training_flops("update", f_s, f_d, 100) == pytest.approx((2100 + 14 + 50) / 101)
    with pytest.raises(InputError, match="valid: dense, never, update, always"):
        training_flops("rigl", f_s, f_d)


def test_footprint_counts_values_indices_and_moments():
    mask = np.zeros((4, 8), dtype=bool)
    mask[:, ::4] = True
    found = footprint([Mask(mask)], pattern("n_m:1,4"), moments=2)
    assert (found.weight_bytes, found.index_bytes, found.moment_bytes) == (8 * 4, 8, 64)
    assert found.saving == pytest.approx(1 - (32 + 8 + 64) / (128 + 256))
    csr = footprint([Mask(np.ones((4, 8), dtype=bool))], pattern("unstructured"))
    assert csr.saving < 0


def test_a_run_records_coverage_and_memory():
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    sparsifier = sparsify(model, optimizer, "set", 0.25)
    train_step(model, optimizer, sparsifier, 0)
    found = run_figures(sparsifier)
    masked = sum(m.size for m in sparsifier.masks().values())
    assert found["coverage"] == masked / sum(p.numel() for p in model.parameters())
    assert found["moment_bytes"] == 2 * found["weight_bytes"]
    assert found["dense_bytes"] == masked * 12


@pytest.mark.parametrize(("algorithm", "share"), [("top_kast", 0.35), ("sr_ste", 1.0)])
def test_values_that_inactive_weights_keep_are_counted(algorithm, share):
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    density = 0.25 if algorithm == "top_kast" else 0.5
    sparsifier = sparsify(model, optimizer, algorithm, density, distribution="uniform")
    train_step(model, optimizer, sparsifier, 0)
    found = run_figures(sparsifier)
    assert found["weight_bytes"] * 3 == found["dense_bytes"]
    assert found["moment_bytes"] / (2 * found["weight_bytes"]) == pytest.approx(share, abs=0.02)
