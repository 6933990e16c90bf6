import os
import signal
import time

import pytest

from analysis.comparing.workers import run_all
from hwsim import InputError
from hwsim.files import replacing


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


def refuse_beside_a_writer(folder, tell):
    """The first to come writes a file and never ends; the other refuses once that is under way."""
    try:
        (folder / "taken").mkdir()
    except FileExistsError:
        while not list(folder.glob(".*.part")):
            time.sleep(0.01)
        raise InputError("job: refused") from None
    with replacing(folder / "table.json") as part:
        part.write_text("half of")
        time.sleep(600)


def ignore_the_end(folder, tell):
    """As the writer, but deaf to the word that ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    refuse_beside_a_writer(folder, tell)


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


def test_a_worker_that_is_ended_takes_back_what_it_has_half_written(tmp_path):
    with pytest.raises(InputError, match="refused"):
        run_all(refuse_beside_a_writer, [tmp_path, tmp_path], 2, lambda done, note: None)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.slow
def test_a_worker_that_does_not_end_is_killed(tmp_path):
    with pytest.raises(InputError, match="refused"):
        run_all(ignore_the_end, [tmp_path, tmp_path], 2, lambda done, note: None)


def test_a_worker_that_dies_is_an_error_not_a_hang(capfd):
    with pytest.raises(InputError, match="a worker process died"):
        run_all(crash, [1], 1, lambda done, note: None)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_the_end_of_a_pool_is_silent_and_none_is_waited_for(capfd):
    """Workers are told to end while they are on their way out by themselves."""
    for _ in range(5):
        run_all(square, [1, 2, 3], 2, lambda done, note: None)
    assert capfd.readouterr() == ("", "")
