import json

import pytest
from hand_made import masks, workload

from analysis.estimating.breakdown import breakdown
from analysis.estimating.intensity import Spot, as_json, roof_of, spots
from analysis.reporting.roofline_plot import draw
from hwsim import device_names, load_device

STEP = workload()


def test_a_roof_is_what_the_data_sheet_says():
    roof = roof_of(load_device("h200"), STEP)
    assert roof.dtype == "float32"
    assert roof.bytes_per_s == pytest.approx(4.8e12, rel=1e-3)
    assert roof.flops_per_s == pytest.approx(load_device("h200").vector_flops, rel=0.15)
    assert roof.ridge == pytest.approx(roof.flops_per_s / roof.bytes_per_s)


@pytest.mark.parametrize("name", device_names())
def test_no_part_of_a_step_passes_the_roof(name):
    device = load_device(name)
    roof = roof_of(device, STEP)
    for kind, parts in spots(device, STEP).items():
        if kind in ("gemm", "conv"):
            assert all(s.flops_per_s <= roof.flops_per_s * (1 + 1e-9) for s in parts)


def test_spots_hold_the_whole_step():
    device = load_device("a100")
    sparse = STEP.with_masks(masks(STEP, 0.2))
    found = spots(device, sparse)
    assert any(kind.endswith("under a mask") for kind in found)
    seconds = sum(s.seconds for parts in found.values() for s in parts)
    assert seconds == pytest.approx(device.estimate(sparse).seconds)
    assert Spot("x", 6.0, 2.0, 3.0).flops_per_s == 2.0 == Spot("x", 4.0, 2.0, 1.0).intensity


def test_json_has_every_row_dense_and_sparse_and_no_infinity():
    device = load_device("ideal")
    b = breakdown(device, STEP, STEP.with_masks(masks(STEP, 0.2)), "layer")
    found = as_json(b, roof_of(device, STEP))
    assert [r["label"] for r in found["rows"]] == [*(r.label for r in b.rows), "total"]
    assert found["bytes_per_s"] is None  # ideal has no memory to wait for
    json.dumps(found, allow_nan=False)


def test_a_figure_says_what_it_leaves_out(tmp_path):
    path = tmp_path / "roofline.svg"
    assert draw("small", [load_device("a100"), load_device("wafer")], STEP, path) == path
    text = path.read_text()
    assert "FLOP per byte" in text and "small on a100" in text and "small on wafer" in text
