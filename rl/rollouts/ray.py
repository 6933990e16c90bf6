"""Rollouts as Ray actors of one processor each: the machines of a cluster, or this one.

Connects to the cluster that RAY_ADDRESS names; without it a Ray of its own is started here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from hwsim import InputError
from rl.rollouts._base import Crew, Rollouts, serve
from rl.worlds import World


class RayRollouts(Rollouts):
    """See `rl.rollouts._base`. A Ray that was running before is left running."""

    def _start(self, world: World, seed: int, dealt: Sequence[Sequence[int]]) -> None:
        self._ray, self._own = connected(len(dealt))
        actor = self._ray.remote(num_cpus=1, runtime_env={"env_vars": ONE_THREAD})(_Worker)
        self._workers = [actor.remote(world, seed, tuple(shards)) for shards in dealt]
        for error in self._ray.get([worker.error.remote() for worker in self._workers]):
            if error:
                self.close()
                raise InputError(error)

    def _ask(self, request: bytes) -> list[bytes]:
        return self._ray.get([worker.serve.remote(request) for worker in self._workers])

    @property
    def apart(self) -> bool:
        return True

    def close(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers = []
        if self._own:
            self._ray.shutdown()


# Of each worker, in its environment.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


class _Worker:
    """The actor: a Crew, or what kept it from being made."""

    def __init__(self, world: World, seed: int, shards: Sequence[int]) -> None:
        self._error = ""
        try:
            self._crew = Crew(world, seed, shards)
        except InputError as error:
            self._error = str(error)

    def error(self) -> str:
        return self._error

    def serve(self, request: bytes) -> bytes:
        return serve(self._crew, request)


def connected(processes: int, what: str = "rollouts") -> tuple[Any, bool]:
    """The module ray, connected, and whether it was connected here, so that it is to be ended.

    Without RAY_ADDRESS, and where none is running, a Ray of `processes` processors is started.

    Raises:
        InputError: ray is not installed; `what` names the option.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            f"{what}: ray is not installed; allowed after pip install 'nettime[ray]'"
        ) from None
    own = not ray.is_initialized()
    if own:
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": processes}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **local)
    return ray, own


ROLLOUTS = RayRollouts
