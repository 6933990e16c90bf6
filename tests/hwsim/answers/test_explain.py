"""What limits a layer, which mask would help, and the timeline of a step."""

import numpy as np
import pytest

from hwsim import InputError, Mask, Op, Workload, gemm, load_device
from hwsim.answers.explain import explain, explain_layer
from hwsim.answers.timeline import layer_timeline, step_timeline


def skewed(rows=256, columns=256) -> Mask:
    rng = np.random.default_rng(1)
    return Mask(rng.random((rows, columns)) < np.linspace(0.02, 0.4, rows)[:, None])


def test_balance_names_the_slowest_row_and_the_empty_ones():
    mask = Mask(np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=bool))
    found = explain(load_device("ideal"), gemm(4, 3, 3, mask))
    assert (found.rows.mean, found.rows.max, found.rows.slowest, found.rows.empty) == (
        4 / 3,
        3,
        1,
        1,
    )
    assert found.rows.balance == pytest.approx(4 / 9)
    assert (found.columns.max, found.columns.slowest) == (2, 0)


def test_on_a_plain_array_only_n_of_m_helps():
    found = explain(load_device("systolic"), gemm(1024, 256, 256, skewed()))
    assert {c.what for c in found.changes if c.speedup > 1.001} == {
        "2:4 along inputs", "transposable 2:4",
    }  # fmt: skip
    assert found.best_change.seconds < found.estimate.seconds


def test_changes_keep_the_nonzeros_and_their_price_is_the_devices():
    device, mask = load_device("sigma-like"), skewed()
    found = explain(device, gemm(512, 256, 256, mask))
    by_name = {c.what: c for c in found.changes}
    for name in ("rows of equal nnz", "columns of equal nnz", "whole neurons removed"):
        assert by_name[name].nnz == mask.nnz
    assert by_name["a tenth fewer weights"].nnz == mask.nnz - mask.nnz // 10
    assert [c.seconds for c in found.changes] == sorted(c.seconds for c in found.changes)
    in_order = Mask(mask.array[np.argsort(-mask.row_nnz, kind="stable")])
    assert by_name["outputs in order of nnz"].seconds == (
        device.estimate(gemm(512, 256, 256, in_order)).seconds
    )


def test_occupancy_is_a_share_and_the_limiting_resource_is_the_busiest():
    found = explain(load_device("sigma-like", dram_bandwidth=1e9), gemm(64, 256, 256, skewed()))
    assert all(0 <= share <= 1 for share in found.occupancy.values())
    assert found.estimate.bound == "memory"
    assert max(found.occupancy, key=found.occupancy.get).startswith("channel")


def test_a_layer_is_explained_in_its_three_phases_and_unknown_ones_are_named():
    mask = skewed()
    ops = [gemm(64, 256, 256, mask, p, name="up") for p in ("forward", "grad_input", "grad_weight")]
    work = Workload((*ops, Op("norm", "forward", "norm", dense_flops=9, activation_bytes=9)))
    phases = [e.op.phase for e in explain_layer(load_device("sigma-like"), work, "up")]
    assert phases == ["forward", "grad_input", "grad_weight"]
    with pytest.raises(InputError, match="unknown layer 'down'"):
        explain_layer(load_device("sigma-like"), work, "down")
    with pytest.raises(InputError, match="allowed is a product"):
        explain(load_device("sigma-like"), work.ops[-1])


def test_other_settings_of_the_device_are_priced():
    op = gemm(64, 256, 256)
    found = explain(load_device("systolic"), op)
    assert {c.what for c in found.settings} == {"dataflow is", "dataflow os"}
    for change in found.settings:
        other = load_device("systolic", dataflow=change.what.split()[1])
        assert change.seconds == other.estimate(op).seconds
    assert explain(load_device("ideal"), op).settings == ()


def test_a_dense_layer_is_explained_too():
    found = explain(load_device("systolic"), gemm(64, 128, 128))
    assert found.rows.balance == found.columns.balance == 1.0


def test_a_layers_timeline_ends_with_its_run_and_names_its_resources():
    device, op = load_device("sigma-like"), gemm(512, 256, 256, skewed(), name="up")
    line = layer_timeline(device, op)
    assert line.seconds == pytest.approx(device.run(op).cycles / device.clock_hz)
    assert line.resources[-1].startswith(("array", "output"))
    assert {s.label for s in line.segments} == {"up"}
    assert all(0 <= s.start_s < s.end_s <= line.seconds * (1 + 1e-9) for s in line.segments)


def test_a_steps_timeline_shows_the_prefetch_and_who_waits():
    device = load_device("systolic", dram_bandwidth=1e11)
    work = Workload(tuple(gemm(512, 512, 512, name=f"layer {i}") for i in range(3)))
    line = step_timeline(device, work)
    assert (line.ops, line.ops_in_step) == (3, 3)
    first_end = max(s.end_s for s in line.segments if s.label == "layer 0")
    early = [s for s in line.segments if s.label == "layer 1" and s.kind == "weight"]
    assert min(s.start_s for s in early) < first_end
    assert line.waiting()["inputs"] > 0
    assert step_timeline(device, work, most_tiles=1).ops == 1


def test_devices_and_steps_without_a_pipeline_are_refused():
    with pytest.raises(InputError, match="has no pipeline"):
        layer_timeline(load_device("ideal"), gemm(4, 4, 4))
    norm = Workload((Op("norm", "forward", dense_flops=1, activation_bytes=1),))
    with pytest.raises(InputError, match="no matrix product"):
        step_timeline(load_device("systolic"), norm)


def test_the_slowest_pe_column_of_a_wafer_is_the_one_with_most_nonzeros():
    array = np.zeros((128, 256), bool)
    array[:100, 5] = array[:7, 133] = True  # both lie in column 5 of 128 when interleaved
    found = explain(load_device("wafer"), gemm(16, 128, 256, Mask(array))).pes
    assert (found.slowest, found.max, found.unit) == ("PE column 5", 107, "nonzeros")
    assert found.mean == pytest.approx(107 / 128)
    apart = explain(load_device("wafer", placement="balanced"), gemm(16, 128, 256, Mask(array)))
    assert apart.pes.max == 100
    assert 0 < apart.pes.balance <= 1


@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
@pytest.mark.parametrize("phase", ["forward", "grad_input", "grad_weight"])
def test_the_first_cell_of_an_array_has_most_products_and_all_cells_have_the_macs(dataflow, phase):
    device = load_device("systolic", rows=8, cols=16, dataflow=dataflow, arrays=2)
    op = gemm(20, 24, 40, phase=phase)
    found = explain(device, op).pes
    assert found.mean * 8 * 16 * 2 == pytest.approx(20 * 24 * 40)
    assert found.max >= found.mean
    full = explain(device, gemm(32, 32, 32, phase=phase)).pes
    assert full.balance == pytest.approx(1.0)


def test_a_device_without_a_pipeline_has_no_processing_elements_to_balance():
    assert explain(load_device("ideal"), gemm(4, 8, 8)).pes is None


def test_the_longest_wave_of_flexible_multipliers_is_never_shorter_than_the_mean_one():
    found = explain(load_device("sigma-like"), gemm(64, 256, 256, skewed())).pes
    assert found.slowest == "the longest wave"
    assert found.max >= found.mean > 0
