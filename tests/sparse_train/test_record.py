"""What a run left behind, priced afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from _tiny_run import tiny

import hwsim
from hwsim.errors import InputError
from sparse_train.record import TrainingRecord
from sparse_train.runs import run_folder
from sparse_train.trainer import train


@pytest.fixture(scope="module")
def record(text_folder, tmp_path_factory):
    return train(tiny(text_folder), tmp_path_factory.mktemp("record") / "run")


def test_segments_cover_every_step_once_in_order(record):
    at = 1
    for segment in record.segments():
        assert segment.first_step == at
        at += segment.steps
    assert at == record.config.steps + 1


def test_growth_steps_stand_alone_and_carry_a_mask_update(record):
    growth = [s for s in record.segments() if any(op.kind == "mask_update" for op in s.workload)]
    assert [(s.first_step, s.steps) for s in growth] == [(3, 1), (6, 1), (9, 1)]


def test_a_growth_step_has_the_masks_from_before_the_update(record):
    segments = {s.first_step: s.workload for s in record.segments()}
    masks = [record.masks(v) for v in range(len(record.mask_versions))]
    assert segments[3].masks.keys() == masks[0].keys()
    forward = {op.name: op.mask for op in segments[3].phase("forward") if op.mask is not None}
    assert forward == masks[0]
    assert segments[4].masks == masks[1]
    assert masks[0] != masks[1]


def test_pairs_are_the_segments(record):
    pairs = list(record.pairs())
    assert [steps for _, steps in pairs] == [s.steps for s in record.segments()]
    assert [w.digest for w, _ in pairs] == [s.workload.digest for s in record.segments()]


def test_seconds_are_the_sum_over_all_steps_so_far(record):
    device = hwsim.load_device("ideal")
    each = np.concatenate(
        [np.full(s.steps, device.estimate(s.workload).seconds) for s in record.segments()]
    )
    steps, seconds = record.seconds_at(device)
    assert steps.tolist() == [0, 5, 10, 15, 16]
    assert seconds == pytest.approx([each[:n].sum() for n in steps], rel=1e-12)
    time = record.net_time(device)
    assert (time.low_s <= time.seconds).all()
    assert (time.seconds <= time.high_s).all()


def test_densities_are_those_of_the_masks(record):
    for version in range(len(record.mask_versions)):
        rows = record.densities.filter(version=version).iter_rows(named=True)
        assert {r["layer"]: r["nnz"] for r in rows} == {
            name: mask.nnz for name, mask in record.masks(version).items()
        }


def test_a_dense_run_is_one_segment_of_its_dense_step(text_folder, tmp_path):
    record = train(tiny(text_folder, algorithm="dense", density=1.0, steps=4), tmp_path / "run")
    (segment,) = record.segments()
    assert (segment.first_step, segment.steps) == (1, 4)
    assert segment.workload.digest == record.base_workload.digest
    assert record.mask_versions == ()


def test_a_stored_workload_comes_back_equal(record, tmp_path):
    run_folder.write_workload(tmp_path, record.base_workload)
    assert run_folder.read_workload(tmp_path).digest == record.base_workload.digest


@pytest.mark.parametrize(
    "file", ["config.json", "metrics.parquet", "evaluations.parquet", "densities.parquet"]
)
def test_a_half_written_file_is_named(record, tmp_path, file):
    for name in ("config.json", "metrics.parquet", "evaluations.parquet", "densities.parquet"):
        content = (record.folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] if name == file else content)
    with pytest.raises(InputError, match=file):
        TrainingRecord.load(tmp_path)


def test_a_half_written_mask_file_is_named(tmp_path):
    (tmp_path / "v0000.safetensors").write_bytes(b"\x10\0\0")
    with pytest.raises(InputError, match=r"v0000\.safetensors: not a mask version"):
        run_folder.read_masks(tmp_path / "v0000.safetensors")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a run"):
        TrainingRecord.load(tmp_path)


def test_a_half_written_figures_file_is_named(record, tmp_path):
    for name in ("config.json", "figures.json"):
        content = (record.folder / name).read_bytes()
        (tmp_path / name).write_bytes(
            content[: len(content) // 2] if name == "figures.json" else content
        )
    with pytest.raises(InputError, match=r"figures\.json"):
        TrainingRecord.load(tmp_path)


def test_what_was_explored_is_the_union_of_all_masks(record):
    ever = [np.zeros(m.shape, bool) for m in record.masks(0).values()]
    for version in range(len(record.mask_versions)):
        for union, mask in zip(ever, record.masks(version).values(), strict=True):
            union |= mask.array
    rate = sum(int(u.sum()) for u in ever) / sum(u.size for u in ever)
    assert record.figures["explored"] == pytest.approx(rate, rel=1e-12)
    assert record.figures["explored"] > record.figures["density"]


def test_test_metrics_are_there_only_when_asked_for(record, text_folder, tmp_path):
    assert record.test == {}
    asked = train(tiny(text_folder, steps=4, test=True), tmp_path / "run")
    assert asked.test.keys() == {"loss", "accuracy"}
    assert asked.evaluations["step"].to_list() == [0, 4]


def test_always_dense_gradients_cost_more_in_every_step(text_folder, tmp_path):
    set_, snfs = (
        train(tiny(text_folder, algorithm=name, steps=4), tmp_path / name)
        for name in ("set", "snfs")
    )
    assert (set_.gradient, snfs.gradient) == ("never", "always")
    for mine, theirs in zip(set_.segments(), snfs.segments(), strict=True):
        assert mine.workload.phase("grad_weight").flops < theirs.workload.phase("grad_weight").flops


def test_wall_seconds_rise_from_nothing_to_the_whole_run(record):
    seconds = record.wall_seconds
    assert seconds.shape == (len(record.evaluations),)
    assert seconds[0] == 0
    assert (np.diff(seconds) > 0).all()
    assert seconds[-1] == pytest.approx(record.wall_s)


def test_weights_that_are_trained_without_being_used_are_priced_as_trained(text_folder, tmp_path):
    """Top-KAST: forward on D, gradients of D + M; SR-STE: gradients of all."""
    options = {"density": 0.3, "distribution": "uniform", "steps": 8}
    set_, kast = (
        train(tiny(text_folder, algorithm=name, **options), tmp_path / name)
        for name in ("set", "top_kast")
    )
    ste = train(
        tiny(
            text_folder, algorithm="sr_ste", update_interval=None,
            **{**options, "density": 0.5},
        ),
        tmp_path / "ste",
    )  # fmt: skip
    sparse, wider, every = (r.segments()[0].workload for r in (set_, kast, ste))
    assert wider.phase("forward").flops == sparse.phase("forward").flops
    for op in wider:
        if op.kind == "gemm" and op.phase == "grad_weight" and op.mask is not None:
            assert op.nnz / op.weights == pytest.approx(0.3 + 0.1, abs=0.01), op.name
    for kind in ("gemm", "optimizer"):
        reached = [o for o in every if o.kind == kind and o.phase in ("grad_weight", "update")]
        assert reached and all(op.mask is None for op in reached), kind
    # Their updates look at magnitudes: no step needs a gradient beyond what it trains.
    growth = next(
        s.workload for s in kast.segments() if any(o.kind == "mask_update" for o in s.workload)
    )
    ordinary = wider.phase("grad_weight").flops
    assert growth.phase("grad_weight").flops == ordinary


@pytest.mark.parametrize(
    ("algorithm", "share"), [("static", 3.0), ("set", 3.0), ("snfs", 2.0), ("rigl", None)]
)
def test_flops_of_a_run_follow_the_published_formulas(text_folder, tmp_path, algorithm, share):
    options = {"algorithm": algorithm, "steps": 8, "distribution": "uniform"}
    if algorithm == "static":
        options["update_interval"] = None
    run = train(tiny(text_folder, **options), tmp_path / algorithm)
    dense = run.base_workload.phase("forward").flops
    masks = {n: m for n, m in run.masks(0).items() if n in run.base_workload.layers}
    sparse = run.base_workload.with_masks(masks).phase("forward").flops
    if algorithm == "snfs":
        # Layers' densities move: only the bounds are sure.
        assert 8 * (2 * sparse * 0.9 + dense) < run.published_flops < 8 * 3 * dense
    elif algorithm == "rigl":
        assert run.training["mask_update"].sum() == 1
        expected = 8 * (3 * sparse * 8 + 2 * sparse + dense) / 9
        assert run.published_flops == pytest.approx(expected, rel=1e-3)
    else:
        assert run.published_flops == pytest.approx(8 * share * sparse, rel=1e-3)


def test_flops_of_a_dense_run_are_three_forward_passes_a_step(text_folder, tmp_path):
    config = tiny(text_folder, algorithm="dense", density=1.0, update_interval=None, steps=3)
    run = train(config, tmp_path / "dense")
    assert run.published_flops == 9 * run.base_workload.phase("forward").flops


def _opened(record, monkeypatch):
    """Mask files that are read from now on, in order."""
    opened = []
    plain = run_folder.read_version
    monkeypatch.setattr(
        run_folder, "read_version", lambda path: opened.append(path.name) or plain(path)
    )
    return TrainingRecord.load(record.folder), opened


def test_each_mask_file_is_read_once_for_all_that_is_priced(record, monkeypatch):
    fresh, opened = _opened(record, monkeypatch)
    devices = [hwsim.load_device(name) for name in ("ideal", "wafer", "zen3")]
    together = fresh.net_times(devices)
    alone = [record.net_time(device) for device in devices]
    assert fresh.published_flops == record.published_flops
    assert fresh.last_step == record.last_step
    assert sorted(opened[: len(fresh.mask_versions)]) == sorted(set(opened))
    assert len(opened) == (1 + len(devices)) * len(fresh.mask_versions)  # those of `alone` too
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.seconds, other.seconds)
        assert np.array_equal(one.high_s, other.high_s)


def test_the_last_step_and_flops_need_no_device(record, monkeypatch):
    last = record.masks(-1)
    fresh, opened = _opened(record, monkeypatch)
    assert fresh.last_step.masks == last
    assert len(opened) == 1
    assert sum(count for _, _, count in fresh.flops) == record.config.steps
