"""Dense runs: their curve falls, their target is reached, equal seeds give equal runs."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hwsim import InputError
from rl.runs import dense
from rl.runs.dense import DenseRun, DenseRuns, dense_runs
from rl.runs.problems import Problem

CURVES = st.lists(st.floats(0.1, 5.0), min_size=2, max_size=20)


def run(losses):
    return DenseRun(3, np.array(losses), np.full(len(losses), np.nan), ())


def test_a_falling_curve_is_its_own():
    dense = run([4.0, 3.0, 1.0])
    assert dense.target_loss(1.0) == 1.0
    assert dense.target_loss(0.5) == 3.0
    assert dense.target_loss(0.75) == 2.0
    assert dense.rounds_at([5.0, 3.5, 2.0, 0.5]).tolist() == [0.0, 0.5, 1.5, 2.0]
    assert dense.rounds_to(2.0) == 1.5


def test_a_rise_is_smoothed_away():
    dense = run([4.0, 1.0, 3.0, 0.0])
    assert dense.target_loss(0.5) == 2.0  # 1 and 3 are joined at round 1.5
    assert dense.rounds_at(2.0) == 1.5


@example(losses=[1.5778784330605382] * 3, share=1.0)
@given(CURVES, st.floats(0.05, 1.0))
def test_every_target_is_reached_by_the_run_itself(losses, share):
    dense = run(losses)
    target = dense.target_loss(share)
    assert 0 <= dense.rounds_to(target) <= len(losses) - 1


@given(CURVES, st.floats(0.0, 6.0), st.floats(0.0, 1.0))
def test_a_lower_loss_is_never_reached_sooner(losses, loss, lower):
    dense = run(losses)
    assert dense.rounds_at(loss) <= dense.rounds_at(loss - lower)


def test_a_target_that_the_dense_run_never_reaches_is_named():
    with pytest.raises(InputError, match=r"loss is 0\.5; the dense run reaches 1"):
        run([3.0, 1.0]).rounds_to(0.5)


def test_a_run_does_not_depend_on_which_others_were_asked_for(tiny):
    problem = Problem("bert-1x8", tiny)
    alone = DenseRuns(problem).get(5)
    after = DenseRuns(problem)
    after.get(9)
    after = after.get(5)
    assert np.array_equal(alone.losses, after.losses)
    assert torch.equal(alone.networks[-1]["weights"], after.networks[-1]["weights"])
    assert alone.losses[-1] < alone.losses[0]


def test_environments_of_a_process_share_their_dense_runs(tiny):
    assert dense_runs(Problem("bert-1x8", tiny)) is dense_runs(Problem("bert-1x8", tiny))


def test_a_machine_trains_a_dense_run_once(tiny, monkeypatch):
    problem = Problem("bert-1x12", tiny)
    first = DenseRuns(problem).get(3)
    again = DenseRuns(problem)
    monkeypatch.setattr(again, "_train", lambda seeds: pytest.fail("trained again"))
    found = again.get(3)
    assert np.array_equal(first.losses, found.losses)
    for one, other in zip(first.networks, found.networks, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_damaged_file_is_trained_again(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problem = Problem("bert-1x8", tiny)
    first = DenseRuns(problem).get(0)
    (file,) = (tmp_path / "nettime" / "dense").glob("*.pt")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(DenseRuns(problem).get(0).losses, first.losses)
    assert file.stat().st_size > 100


def test_a_cache_that_cannot_be_written_is_no_hindrance(tiny, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert DenseRuns(Problem("bert-1x8", tiny)).get(0).losses[0] > 0


def test_memory_holds_the_runs_asked_for_last_and_others_come_back_the_same(tiny, monkeypatch):
    runs = DenseRuns(Problem("bert-1x8", tiny))
    first = runs.get(0)
    monkeypatch.setattr(dense, "HELD", dense.Held(3 * first.bytes))
    for seed in range(0, 10 * runs.chunk, runs.chunk):
        runs.get(seed)
        assert 0 < dense.HELD.bytes <= max(3, runs.chunk) * first.bytes
    again = runs.get(0)
    assert again is not first
    assert again.losses.tolist() == first.losses.tolist()
    for one, other in zip(again.networks, first.networks, strict=True):
        for name, value in one.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other[name])


def test_one_run_is_held_however_large_it_is():
    def run(rounds):
        networks = tuple({"weights": torch.zeros(100)} for _ in range(rounds))
        return DenseRun(1, np.ones(rounds), np.ones(rounds), networks)

    held = dense.Held(1000)
    held.put(("a", 0), run(2))
    assert held.bytes == 800
    held.put(("a", 1), run(9))
    assert held.get(("a", 0)) is None and held.bytes == 3600
    held.put(("a", 1), run(1))
    assert held.bytes == 400
