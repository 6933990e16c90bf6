"""Jobs on a Ray cluster, one processor each: the same results as `workers.run_all`.

Every job writes to its folder, so that the machines of a cluster need a common file system.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from analysis.comparing.workers import Tell
from hwsim import InputError
from rl.rollouts.ray import ONE_THREAD, connected


def run_all_on_ray(
    work: Callable[[Any, Tell], Any],
    jobs: Sequence[Any],
    processes: int,
    update: Callable[[dict[int, int], str], None],
) -> list[Any]:
    """As `workers.run_all`; `processes` is the size of a Ray that is started here.

    Nothing is told of a job before it has ended.

    Raises:
        InputError: ray is not installed, or that of the first job that raised one; the others are
            then ended. A worker that died is one too.
    """
    ray, own = connected(processes, "--on")
    run = ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": ONE_THREAD})(_run)
    waiting = {run.remote(work, job): number for number, job in enumerate(jobs)}
    results: dict[int, Any] = {}
    done: dict[int, int] = {}
    try:
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            number = waiting.pop(ready)
            try:
                result, told, note, error = ray.get(ready)
            except ray.exceptions.RayError as problem:
                first = str(problem).strip().splitlines()[0]
                raise InputError(f"--on: a worker of Ray failed: {first}") from None
            if error:
                raise InputError(error)
            results[number], done[number] = result, told
            update(done, note)
    finally:
        for ref in waiting:
            ray.cancel(ref, force=True)
        if own:
            ray.shutdown()
    return [results[number] for number in range(len(jobs))]


def _run(work: Callable[[Any, Tell], Any], job: Any) -> tuple[Any, int, str, str]:
    """Result, units done, last words, and an InputError's text."""
    told = [(0, "")]

    def tell(done: int, note: str = "") -> None:
        told[0] = done, note

    try:
        return work(job, tell), *told[0], ""
    except InputError as error:
        return None, *told[0], str(error)
