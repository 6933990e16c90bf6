"""Timelines of a step: the format's rules, and that times add up to the estimate."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import Mask, Op, Workload, gemm, load_device
from hwsim.answers.trace import step_events, write_step
from hwsim.specification import device_names

DEVICES = ("ideal", "wafer", "sigma-like", "tpu-like", "systolic", "h200", "zen4")


def _step(sizes=((96, 64),), tokens=32, density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    ops = []
    for phase in ("forward", "grad_input", "grad_weight"):
        for i, shape in enumerate(sizes):
            mask = Mask(rng.random(shape) < density)
            ops.append(gemm(tokens, *shape, mask, phase, "bfloat16", name=f"layer.{i}"))
        ops.append(Op("norm", phase, "norm", tokens, 64, dtype="bfloat16", dense_flops=512,
                      activation_bytes=4096))  # fmt: skip
    return Workload(tuple(ops), "small")


def _check(events):
    """Every event belongs to a named process and thread; a thread's events nest."""
    processes = {e["pid"] for e in events if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    by_thread = {}
    for e in events:
        assert e["ph"] in ("M", "X")
        if e["ph"] == "X":
            assert e["pid"] in processes and (e["pid"], e["tid"]) in threads
            assert e["dur"] >= 0.0 and e["ts"] >= 0.0
            by_thread.setdefault((e["pid"], e["tid"]), []).append(e)
    for mine in by_thread.values():
        near = 1e-6 * max(e["ts"] + e["dur"] for e in mine)
        open_ = []
        for e in sorted(mine, key=lambda e: (e["ts"], -e["dur"])):
            while open_ and open_[-1] <= e["ts"] + near:
                open_.pop()
            assert not open_ or e["ts"] + e["dur"] <= open_[-1] + near
            open_.append(e["ts"] + e["dur"])


@given(
    st.sampled_from(DEVICES), st.lists(st.tuples(st.integers(8, 200), st.integers(8, 200)),
                                       min_size=1, max_size=3),
    st.integers(1, 64), st.floats(0.05, 1.0), st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_events_nest_and_add_up_to_the_estimate(name, sizes, tokens, density, seed):
    device, step = load_device(name), _step(sizes, tokens, density, seed)
    events = step_events([device], step)
    _check(events)
    estimate = device.estimate(step)
    own = [e for e in events if e["ph"] == "X" and e["pid"] == 0]
    (whole,) = [e for e in own if e["name"] == "small"]
    ops = [e for e in own if "kernel" in e.get("args", {})]
    phases = [e for e in own if e["name"] in ("forward", "grad_input", "grad_weight")]
    assert len(ops) == len(step.ops) and len(phases) == 3
    for some in (ops, phases, [whole]):
        assert sum(e["dur"] for e in some) == pytest.approx(1e6 * estimate.seconds)
    assert sum(e["args"]["cycles"] for e in ops) == pytest.approx(estimate.cycles)


@pytest.mark.parametrize("name", device_names())
def test_every_device_has_a_timeline(name):
    dtype = "float32" if name.startswith("zen") else "float16"
    op = gemm(64, 64, 64, None, "forward", dtype, name="layer")
    _check(step_events([load_device(name)], Workload((op,))))


def test_accelerators_show_their_parts(tmp_path):
    systolic, ideal = load_device("systolic"), load_device("ideal")
    write_step(tmp_path / "t.json", [systolic, ideal], _step())
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    _check(events)
    titles = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert titles == ["systolic", "systolic: pipeline, 3 of 3 products", "ideal"]
    threads = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"channel 0", "array 0", "ops"} <= threads
