"""Timelines in figures and in the report: rows, shares of time, words."""

import re

import numpy as np
import pytest
from hand_made import contenders
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.reporting import plots, report, timelines
from analysis.reporting.timeline_plot import _busy_until, timeline
from hwsim import Mask, Workload, gemm, load_device
from hwsim.answers.timeline import step_timeline

PHASES = ("forward", "grad_input", "grad_weight")


def step() -> Workload:
    rng = np.random.default_rng(0)
    small, large = (Mask(rng.random((n, 256)) < 0.2) for n in (128, 512))
    ops = [gemm(64, 128, 256, small, p, name="query") for p in PHASES]
    ops += [gemm(64, 512, 256, large, p, name="up") for p in PHASES]
    return Workload((*ops, gemm(64, 1024, 256, name="head")))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 3)), min_size=1, max_size=30))
def test_seconds_before_each_edge_are_those_of_every_span(spans):
    spans = np.array([(start, start + length) for start, length in spans])
    edges = np.linspace(0, 12, 7)
    by_hand = [sum(max(0.0, min(e, b) - min(e, a)) for a, b in spans) for e in edges]
    assert _busy_until(spans, edges) == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize("name", ["wafer", "systolic", "tpu-like", "sigma-like"])
def test_a_figure_has_a_row_for_each_kind_of_resource_and_its_products(name):
    device = load_device(name)
    with plots.styled():
        figure = timeline(step_timeline(device, step()), "a step")
        svg = plots.inline_svg(figure)
    rows = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    channels = device.machine().channels
    assert "product" in rows
    assert ("memory" if channels == 1 else f"{channels} channels") in rows
    assert ("2 arrays" if name == "tpu-like" else "array") in rows
    for words in ("compute", "weights", "waits for", "forward", "grad weight"):
        assert words in svg
    assert len(svg) < 600_000


def test_the_dearest_masked_layer_and_the_step_are_drawn_for_devices_with_a_pipeline():
    devices = [load_device(name) for name in ("ideal", "systolic", "wafer")]
    made = timelines.drawings("RigL 20 %", step(), devices)
    assert [d.title for d in made] == [
        "up on systolic", "A training step on systolic", "up on wafer", "A training step on wafer",
    ]  # fmt: skip
    assert all("Arrays work" in d.caption and "RigL 20 %" in d.caption for d in made)
    assert {s.label for s in made[0].line.segments} == {"up"}
    assert timelines.drawings("none", step(), devices[:1]) == []


def test_a_step_too_long_to_draw_says_how_far_it_is_drawn(monkeypatch):
    monkeypatch.setattr(timelines, "_MOST_TILES", 3)
    _, whole = timelines.drawings("x", step(), [load_device("systolic")])
    assert "the first" in whole.caption and "of 7 matrix products" in whole.caption


def test_the_report_shows_timelines_and_asks_nothing_of_the_network():
    made = timelines.drawings("RigL", step(), [load_device("sigma-like")])
    page = report.report(contenders(), "title", drawings=made)
    assert "Who waits for whom" in page
    assert page.count("<figure") == report.report(contenders(), "title").count("<figure") + 2
    assert not re.search(r"https?://|<script[^>]*\bsrc", page)
