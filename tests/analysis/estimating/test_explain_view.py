"""`nettime estimate --explain`: what limits a layer, who has most to do, what would help."""

import pytest

SMALL = ("estimate", "bert-tiny", "--batch-size", "2", "--sequence-length", "16")
UP = ("--explain", "encoder.0.up")


def test_an_explanation_fits_80_columns_and_names_what_limits_each_phase(nettime):
    shown = nettime(*SMALL, "--device", "wafer", "--device", "systolic", "--device", "zen4", *UP)
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    text = " ".join(shown.out.split())
    for words in (
        "encoder.0.up on wafer", "encoder.0.up on systolic", "encoder.0.up on zen4",
        "limited by", "slowest PE PE column", "cell (0, 0)", "array busy", "memory busy",
        "8 channels busy", "Outputs have", "whole neurons removed", "transposable 2:4",
        "the mask that would help most", "unverified",
    ):  # fmt: skip
        assert words in text


def test_the_explanation_as_json_agrees_with_itself(nettime):
    found = nettime(*SMALL, "--density", "0.2", "--device", "sigma-like", *UP, "--json").json
    assert (found["explain"], found["weight_shape"]) == ("encoder.0.up", [512, 128])
    assert found["density"] == pytest.approx(0.2, abs=1e-3)
    (device,) = found["devices"]
    assert [p["phase"] for p in device["phases"]] == ["forward", "grad_input", "grad_weight"]
    now = sum(p["seconds"] for p in device["phases"])
    for change in device["changes"]:
        assert change["speed_up"] == pytest.approx(now / change["seconds"])
    assert device["changes"] == sorted(device["changes"], key=lambda c: (c["seconds"], c["what"]))
    best = device["best_change"]
    assert best is None or best == device["changes"][0]
    for p in device["phases"]:
        assert p["seconds"] >= p["roofline_s"]
        assert all(0 <= share <= 1 for share in p["occupancy"].values())
        assert p["outputs"]["mean"] * 512 == pytest.approx(p["inputs"]["mean"] * 128)
        assert p["pes"]["mean"] <= p["pes"]["max"]
        assert sum(p["by_bound_s"].values()) == pytest.approx(p["seconds"])


def test_the_same_seed_explains_the_same(nettime):
    once, twice = (nettime(*SMALL, "--device", "ideal", *UP, "--json").out for _ in range(2))
    assert once == twice


def test_an_unknown_layer_and_a_sweep_are_refused_in_one_line(nettime):
    wrong = nettime(*SMALL, "--device", "ideal", "--explain", "encoder.0.upp")
    assert wrong.code == 2
    assert "did you mean 'encoder.0.up'?" in " ".join(wrong.err.split())
    both = nettime(*SMALL, "--device", "ideal", *UP, "--sweep", "0.1,0.5")
    assert both.code == 2
    assert "--explain: needs one density" in " ".join(both.err.split())
