import os

import pytest

from analysis.comparing.workers import run_all
from hwsim import InputError


def square(job, tell):
    for done in range(job):
        tell(done + 1, f"job {job}")
    return job * job


def threads(job, tell):
    return os.environ["OMP_NUM_THREADS"]


def refuse(job, tell):
    raise InputError(f"job: value is {job}; allowed is nothing")


def crash(job, tell):
    raise ZeroDivisionError


def test_results_come_in_the_order_of_the_jobs():
    seen = {}
    assert run_all(square, [3, 1, 2], 2, lambda done, note: seen.update(done)) == [9, 1, 4]
    assert seen == {0: 3, 1: 1, 2: 2}


def test_a_worker_has_one_thread_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_all(threads, [0], 2, lambda done, note: None) == ["1"]
    assert "OMP_NUM_THREADS" not in os.environ


def test_bad_input_in_a_worker_is_the_parents_input_error():
    with pytest.raises(InputError, match="job: value is 7"):
        run_all(refuse, [7], 1, lambda done, note: None)


def test_a_worker_that_dies_is_an_error_not_a_hang(capfd):
    with pytest.raises(InputError, match="a worker process died"):
        run_all(crash, [1], 1, lambda done, note: None)
    assert "ZeroDivisionError" in capfd.readouterr().err
