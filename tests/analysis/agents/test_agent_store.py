"""Judged contenders on disk: read back as they were, never taken for others."""

import json

import numpy as np
import pytest
import torch

from analysis.agents import judge, store
from analysis.agents.judge import Judged, Played
from analysis.cli import run
from hwsim import InputError
from rl.evaluate import Episodes


def played(times, cost=1.5):
    n = len(times)
    time = torch.tensor(times)
    paths = torch.stack([torch.zeros(n), torch.ones(n)])
    episodes = Episodes(
        time, -time.log(), torch.ones(n).long(), torch.full((1, n, 2), 0.5), paths * time, paths,
        torch.ones(n, 2, dtype=torch.bool),
    )  # fmt: skip
    return Played(episodes, tuple(f"net {i % 2} on wafer" for i in range(n)), cost, (2e-3,) * n)


def test_a_contender_is_read_back_as_it_was(tmp_path):
    first = Judged(
        "best_constant", (played([0.5, 0.8]), played([0.7])), "density 0.2", 3.0, 64, (4.0,), True
    )
    store.save(first, tmp_path / "one.safetensors")
    again = store.load(tmp_path / "one.safetensors")
    for name in ("name", "note", "cost", "learnt_from", "rates", "at_an_end"):
        assert getattr(again, name) == getattr(first, name)
    for a, b in zip(first.runs, again.runs, strict=True):
        assert (a.groups, a.cost, a.dense_s) == (b.groups, b.cost, b.dense_s)
        for name, value in vars(a.episodes).items():
            assert torch.equal(value, getattr(b.episodes, name)), name
    assert np.array_equal(first.speed_ups, again.speed_ups)


def test_a_contender_is_made_once_for_each_key(tmp_path):
    made = []

    def make():
        made.append(1)
        return Judged("linear", (played([float(len(made))]),))

    key = {"name": "linear", "test": {"target": 0.9}}
    first = store.kept(tmp_path, key, make)
    assert store.kept(tmp_path, key, make).speed_ups == first.speed_ups and len(made) == 1
    store.kept(tmp_path, {**key, "test": {"target": 0.8}}, make)
    assert len(made) == 2


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "one.safetensors"
    path.write_bytes(b"\x08" + bytes(20))
    with pytest.raises(InputError, match="cannot be read") as error:
        store.load(path)
    assert "\n" not in str(error.value)


def test_a_comparison_that_is_run_again_judges_nobody_again(tmp_path, capsys, monkeypatch):
    command = [
        "agent", "compare", "--env", "whitebox", "--slots", "8", "--set", "iterations=1", "--set",
        "steps=6", "--set", "epochs=1", "--seeds", "1", "--opponent", "dense", "--opponent",
        "best_constant", "--episodes", "4", "--out", str(tmp_path), "--json",
    ]  # fmt: skip
    assert run(command) == 0
    first = json.loads(capsys.readouterr().out)

    def never(*_, **__):
        raise AssertionError("it was judged already")

    monkeypatch.setattr(judge.Test, "run", never)
    assert run(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["rows"] == first["rows"]
    assert {row["name"] for row in again["rows"]["white box"]} == {
        "agent", "agent without hardware", "dense", "best_constant",
    }  # fmt: skip
