"""Rollouts in processes of this machine, of one thread each; one worker needs no process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from hwsim import InputError
from hwsim.processes import CONTEXT, ended, started
from rl.rollouts._base import Crew, Rollouts, serve
from rl.worlds import World


class Local(Rollouts):
    """See `rl.rollouts._base`. Workers end with the process that started them."""

    _crew: Crew | None = None
    _workers: list[tuple[Any, Connection]]

    def _start(self, world: World, seed: int, dealt: Sequence[Sequence[int]]) -> None:
        self._workers = []
        if len(dealt) == 1:
            self._crew = Crew(world, seed, dealt[0])
            return
        pipes = [CONTEXT.Pipe() for _ in dealt]
        arguments = [
            (theirs, world, seed, tuple(shards))
            for (_, theirs), shards in zip(pipes, dealt, strict=True)
        ]
        processes = started(_work, arguments)
        for _, theirs in pipes:
            theirs.close()  # So that the end of the worker is the end of the pipe.
        self._workers = [(worker, ours) for worker, (ours, _) in zip(processes, pipes, strict=True)]
        for worker, pipe in self._workers:
            error = _received(worker, pipe).decode()
            if error:
                self.close()
                raise InputError(error)

    def _ask(self, request: bytes) -> list[bytes]:
        if self._crew is not None:
            return [serve(self._crew, request)]
        for _, pipe in self._workers:
            pipe.send_bytes(request)
        return [_received(worker, pipe) for worker, pipe in self._workers]

    @property
    def apart(self) -> bool:
        return self._crew is None

    def close(self) -> None:
        for _, pipe in self._workers:
            pipe.close()
        ended([worker for worker, _ in self._workers])
        self._workers = []


def _received(worker: Any, pipe: Connection) -> bytes:
    try:
        return pipe.recv_bytes()
    except EOFError:
        worker.join()
        raise RuntimeError(
            f"a rollout process ended with exit code {worker.exitcode}; see above for its error"
        ) from None


def _work(pipe: Connection, world: World, seed: int, shards: Sequence[int]) -> None:
    """Serves until the pipe is closed: by its owner, or by its owner's end."""
    import logging

    logging.getLogger("torchrl").setLevel(logging.WARNING)
    try:
        crew = Crew(world, seed, shards)
    except InputError as error:
        pipe.send_bytes(str(error).encode())
        return
    pipe.send_bytes(b"")
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send_bytes(serve(crew, pipe.recv_bytes()))


ROLLOUTS = Local
