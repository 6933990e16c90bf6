import itertools

import pytest

from analysis.estimating.sweep import densities

SMALL = ("estimate", "bert-tiny", "--batch-size", "2", "--sequence-length", "16")


def test_estimate_prints_a_table_per_device_within_80_columns(nettime):
    shown = nettime(*SMALL, "--density", "0.2", "--device", "ideal", "--device", "wafer")
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    assert "…" not in shown.out
    for words in ("ideal: one training step", "wafer: one training step", "not maskable", "total"):
        assert words in " ".join(shown.out.split())


def test_estimate_as_json_adds_up(nettime):
    found = nettime(*SMALL, "--density", "0.25", "--json").json
    assert found["density"] == pytest.approx(0.25, abs=1e-3)
    assert 0 < found["coverage"]["share_of_weights"] < 1
    for device in found["devices"]:
        rows, total = device["rows"], device["total"]
        for side in ("dense", "sparse"):
            seconds = sum(row[side]["seconds"] for row in rows)
            assert seconds == pytest.approx(total[side]["seconds"])
            assert total[side]["low_s"] <= total[side]["seconds"] <= total[side]["high_s"]
        assert total["speed_up"] < device["speed_up_ceiling"]
    assert found["narrower_dense"] and "not maskable" in found["verdict"]


def test_sparsity_is_one_minus_density(nettime):
    one = nettime(*SMALL, "--density", "0.25", "--device", "ideal", "--json").out
    assert nettime(*SMALL, "--sparsity", "0.75", "--device", "ideal", "--json").out == one


def test_mask_updates_cost_something(nettime):
    def seconds(*more):
        found = nettime(*SMALL, "--device", "ideal", "--json", *more).json
        return found["devices"][0]["total"]["sparse"]["seconds"]

    still, often = seconds(), seconds("--algorithm", "rigl", "--update-interval", "10")
    assert still < often
    assert seconds("--algorithm", "rigl", "--update-interval", "1000") < often


def test_by_layer_names_layers_and_fits(nettime):
    shown = nettime(*SMALL, "--by", "layer", "--device", "ideal")
    assert "encoder.0.up" in shown.out and "of peak" in shown.out and "FLOP/B" in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines())


def test_without_a_sweep_the_figure_is_a_roofline(nettime, tmp_path):
    plot = tmp_path / "roofline.svg"
    shown = nettime(*SMALL, "--device", "h200", "--plot", plot, "--by", "layer", "--json").json
    assert shown["plot"] == str(plot) and "FLOP per byte" in plot.read_text()
    rows = shown["devices"][0]["roofline"]["rows"]
    assert all(0 <= row["dense"]["share_of_peak"] <= 1 for row in rows)


def test_a_sweep_prints_a_row_per_density_and_writes_its_figure(nettime, tmp_path):
    plot = tmp_path / "figures" / "sweep.svg"
    shown = nettime(*SMALL, "--sweep", "0.1,0.5", "--plot", plot)
    assert shown.code == 0
    assert all(len(line) <= 80 for line in shown.out.splitlines() if "figure:" not in line)
    assert "Amdahl" in plot.read_text()
    assert list(plot.parent.iterdir()) == [plot]


def test_every_table_and_figure_says_what_was_priced(nettime, tmp_path):
    at = ("--batch-size", "3", "--sequence-length", "40", "--dtype", "bf16", "--seed", "7")
    words = "A step of 3 × 40, adamw, bfloat16; masks of seed 7."
    for what in (
        ("--density", "0.1", "--plot", tmp_path / "roof.svg"),
        ("--sweep", "0.1,0.5", "--plot", tmp_path / "sweep.svg"),
        ("--explain", "encoder.0.up"),
    ):
        shown = nettime("estimate", "bert-tiny", *at, "--device", "ideal", *what)
        assert words in " ".join(shown.out.split())
    for figure in ("roof.svg", "sweep.svg"):
        assert words in (tmp_path / figure).read_text()


def test_a_sweep_has_the_narrower_dense_line(nettime, tmp_path):
    plot = tmp_path / "sweep.svg"
    asked = (*SMALL, "--device", "ideal", "--sweep", "0.1,0.5")
    shown = nettime(*asked, "--plot", plot)
    assert "Over the narrower dense of equal FLOPs on ideal: " in shown.out
    assert "ideal: narrower dense of equal FLOPs" in plot.read_text()
    points = nettime(*asked, "--json").json["sweep"]
    single = nettime(*SMALL, "--device", "ideal", "--density", "0.5", "--json").json
    narrower = single["devices"][0]["narrower_dense"]["seconds"]
    assert points[1]["devices"]["ideal"]["narrower_dense"]["seconds"] == pytest.approx(narrower)
    assert points[0]["devices"]["ideal"]["narrower_dense"]["seconds"] < narrower


def test_a_model_that_cannot_be_made_narrower_is_said_to(nettime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import torch\n\ndef make():\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 8))\n"
        "    return model, torch.zeros(4, 64)\n"
    )
    for what in (("--density", "0.2"), ("--sweep", "0.2,0.5")):
        shown = nettime("estimate", "--model", "own.py:make", "--device", "ideal", *what)
        assert "No narrower dense model: own.py:make takes no argument `width`" in " ".join(
            shown.out.split()
        )


def test_a_sweeps_gain_stays_below_amdahls_limit_on_ideal(nettime):
    found = nettime(*SMALL, "--sweep", "0.1:0.9:3", "--device", "ideal", "--json").json
    assert [point["density"] for point in found["sweep"]] == pytest.approx([0.1, 0.3, 0.9])
    for point in found["sweep"]:
        ideal = point["devices"]["ideal"]
        assert ideal["speed_up"] <= ideal["amdahl_speed_up"] * 1.01


def test_densities_of_a_sweep_are_equal_ratios_apart():
    values = densities("0.05:0.8:5")
    assert values[0] == pytest.approx(0.05) and values[-1] == 0.8
    assert [b / a for a, b in itertools.pairwise(values)] == pytest.approx([2.0] * 4)


MINE = """import torch
from torch import nn

def make_model():
    return nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(8, 32)

def wrong():
    return 7

def half():
    return nn.Linear(2, 2)

def not_a_model():
    return 1, 2

def fails():
    raise RuntimeError("no data here")

number = 3
"""


@pytest.fixture
def my_module(tmp_path, monkeypatch):
    import sys

    (tmp_path / "nettime_test_model.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "nettime_test_model"
    sys.modules.pop("nettime_test_model", None)


def test_a_model_of_the_users_is_priced(nettime, my_module):
    found = nettime("estimate", "--model", f"{my_module}:make_model", "--json").json
    assert found["coverage"]["layers"] == 1
    assert found["coverage"]["weights"] == 32 * 16 + 16 + 16 * 4 + 4
    assert found["narrower_dense"] is None


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nowhere:make_model", "no module 'nowhere'"),
        ("{}:make_modl", "did you mean 'make_model'"),
        ("{}:number", "a function without arguments"),
        ("{}:wrong", "allowed is a tuple (model, batch)"),
        ("{}:half", "allowed is a tuple (model, batch)"),
        ("{}:not_a_model", "torch.nn.Module"),
        ("{}:fails", "RuntimeError: no data here"),
        ("{}", "module:function"),
    ],
)
def test_a_model_that_is_none_is_one_line(nettime, my_module, reference, words):
    reference = reference.format(my_module)
    assert words in nettime("estimate", "--model", reference, "--device", "ideal").error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--model module:function"),
        (("bert-tiny", "--model", "a:b"), "--model module:function"),
        (("bert-tinny",), "bert-tiny"),
        (("bert-tiny", "--density", "1.5"), "at least 0, at most 1"),
        (("bert-tiny", "--sparsity", "-0.1"), "at least 0, at most 1"),
        (("bert-tiny", "--density", "nan"), "at least 0, at most 1"),
        (("bert-tiny", "--density", "0.1", "--sparsity", "0.9"), "allowed is one of them"),
        (("bert-tiny", "--pattern", "stripes"), "unstructured"),
        (("bert-tiny", "--algorithm", "riggle"), "rigl"),
        (("bert-tiny", "--distribution", "urk"), "valid: equal_marginal_time, er, erk, uniform"),
        (("bert-tiny", "--device", "h1000"), "wafer"),
        (("bert-tiny", "--by", "colour"), "valid: phase, kind, layer"),
        (("bert-tiny", "--sweep", "0.9:0.1"), "low:high"),
        (("bert-tiny", "--sweep", "0,0.5"), "low:high"),
        (("bert-tiny", "--plot", "a.svg", "--explain", "encoder.0.up"), "cannot be combined"),
        (("bert-tiny", "--device", "ideal", "--plot", "a.txt"), ".svg"),
        (("bert-tiny", "--trace", "t.txt"), "--trace: value is 't.txt'; allowed is a name that "),
        (("bert-tiny", "--trace", "."), "ends in .json"),
        (("bert-tiny", "--gpus", "2", "--trace", "trace"), "ends in .json"),
        (("bert-tiny", "--what-if", "w.txt"), "ends in .html"),
        (("bert-tiny", "--what-if", "w.html", "--trace", "t.json"), "cannot be combined"),
        (("bert-tiny", "--batch-size", "0"), "at least 1"),
        (("bert-tiny", "--seed", "-1"), "at least 0"),
        (("bert-tiny", "--sweep", "0.5,0.6", "--device", "ideal", "--plot", "a.txt"), ".svg"),
    ],
)
def test_bad_input_is_one_line(nettime, arguments, words):
    assert words in nettime("estimate", *arguments).error
