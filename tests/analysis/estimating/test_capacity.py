"""What fits a single device, and what is said where it does not."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from analysis.estimating import capacity, subject
from analysis.estimating.kept import kept
from hwsim import Mask, load_device


def _step(width=64):
    model = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    return subject.of("m", model, torch.zeros(8, width)).step


def test_what_fits_is_not_spoken_of():
    step = _step()
    roomy = load_device("h200")
    assert capacity.lines(step, [roomy, load_device("ideal")], 8.0) == {}
    found = capacity.as_json(step, [roomy, load_device("ideal")])
    needed = float(step.peak_bytes)
    assert found == {
        "needed_bytes": needed, "needed_bytes_on": {"h200": needed}, "fits": {"h200": True},
    }  # fmt: skip


def test_masks_take_a_byte_a_weight():
    step = _step()
    masked = step.with_masks({name: Mask(np.eye(*shape, dtype=bool))
                              for name, shape in step.layers.items()})  # fmt: skip
    weights = sum(rows * columns for rows, columns in step.layers.values())
    assert capacity.needed_bytes(masked) == step.peak_bytes + weights


def test_what_does_not_fit_says_what_would():
    step = _step(256)
    small = load_device("h200", memory_bytes=0.6 * step.peak_bytes)
    line = capacity.lines(step, [small], 8.0)["h200"]
    found = re.search(r"(\d+) cards would hold it: --gpus (\d+) --parallel fsdp", line)
    assert line.startswith("Does not fit h200: the step needs") and "\n" not in line
    assert found is None or found[1] == found[2]
    tiny = load_device("h200", memory_bytes=1.0)
    assert "no number of such cards" in capacity.lines(step, [tiny], 8.0)["h200"]


def test_the_command_says_so_too(nettime, tmp_path):
    card = tmp_path / "small.toml"
    card.write_text(
        'like = "h200"\n[parameters]\n'
        'memory_bytes = { value = 1e5, unit = "B", source = "assumed" }\n'
    )
    asked = ("estimate", "bert-tiny", "--batch-size", "2", "--sequence-length", "16")
    shown = " ".join(nettime(*asked, "-d", str(card)).out.split())
    assert "Does not fit small: the step needs" in shown
    found = nettime(*asked, "-d", str(card), "-d", "ideal", "--json").json["memory"]
    assert found["fits"] == {"small": False} and len(found["lines"]) == 1


class _Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) >= 0 else self.layer(self.layer(x))


@pytest.mark.parametrize("looks", [True, False])
def test_a_model_that_looks_at_values_is_said_to(looks, tmp_path, monkeypatch):
    monkeypatch.setenv("NETTIME_CACHE", str(tmp_path))
    made = subject.of("m", _Looks() if looks else nn.Linear(8, 8), torch.zeros(4, 8))
    assert made.step.on_values == looks
    assert ("Traced on real tensors" in made.note) == looks
    for _ in range(2):  # made, and read again
        found = kept({"looks": looks}, lambda: {"step": made.step})
        assert found["step"].on_values == looks
