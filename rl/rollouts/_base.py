"""Episodes collected by several workers with the results of one.

A world's slots are cut into shards, each an environment with random streams of its own. Shards are
dealt out to workers, and what they collect is put together in the order of the shards. So results
depend on the number of shards, never on that of workers or on where they run.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector

from hwsim import InputError
from hwsim.checks import check_number
from rl.envs.interface import ScheduleEnv
from rl.worlds import World


def collect(env: ScheduleEnv, explorer: TensorDictModule, steps: int) -> TensorDict:
    """(slots, steps) decisions of a policy from fresh episodes; draws from torch's own stream."""
    frames = env.batch_size[0] * steps
    collector = Collector(
        env, explorer, frames_per_batch=frames, total_frames=frames,
        trust_policy=True, auto_register_policy_transforms=False,
    )  # fmt: skip
    batch = next(iter(collector))
    collector.shutdown(close_env=False)
    return batch


def shard_seed(seed: int, shard: int) -> int:
    """Of a shard's environment; the first has the agent's own seed, as one environment would."""
    return seed if shard == 0 else int(np.random.SeedSequence((seed, shard)).generate_state(1)[0])


class Crew:
    """The shards of one worker, in the worker's process.

    Args:
        shards: numbers of those that are its own.
    """

    def __init__(self, world: World, seed: int, shards: Sequence[int]) -> None:
        part = dataclasses.replace(world, slots=world.slots // world.shards, shards=1)
        self._envs = {shard: part.make(shard_seed(seed, shard)) for shard in shards}

    def collect(
        self, explorer: TensorDictModule, steps: int, streams: Mapping[int, torch.Tensor]
    ) -> dict[int, tuple[TensorDict, torch.Tensor, float]]:
        """Shard → what it collected, torch's random state after it, processor seconds.

        Args:
            streams: shard → torch's random state before it.
        """
        found = {}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # Sums have one order then, wherever they are made.
        try:
            with torch.random.fork_rng(devices=[]):
                for shard, env in self._envs.items():
                    torch.set_rng_state(streams[shard])
                    began = time.process_time()
                    # A copy each: what one shard's noise was leaves no trace in the next.
                    batch = collect(env, copy.deepcopy(explorer), steps).clone()
                    spent = time.process_time() - began
                    found[shard] = batch, torch.get_rng_state(), spent
        finally:
            torch.set_num_threads(threads)
        return found

    def states(self) -> dict[int, dict[str, Any]]:
        """Shard → state of its environment."""
        return {shard: env.state_dict() for shard, env in self._envs.items()}

    def load(self, states: Mapping[int, Mapping[str, Any]]) -> None:
        """Gives each environment its state."""
        for shard, env in self._envs.items():
            env.load_state_dict(dict(states[shard]))


def serve(crew: Crew, request: bytes) -> bytes:
    """Does what is asked of a crew, a pickled (method, arguments); the pickled answer."""
    name, arguments = pickle.loads(request)
    try:
        return pickle.dumps((getattr(crew, name)(*arguments), ""))
    except InputError as error:
        return pickle.dumps((None, str(error)))


class Rollouts(ABC):
    """Stands in for an environment where an agent only collects.

    Attributes:
        batch_size: (slots,) of all shards together.
        elsewhere_s: processor seconds of collecting in other processes than this.
        collected_s: processor seconds of collecting, here or elsewhere: of environments, and of
            the policy's choices in them.
    """

    elsewhere_s: float = 0.0
    collected_s: float = 0.0

    def __init__(self, world: World, seed: int, processes: int) -> None:
        check_number("processes", processes, least=1)
        least = len(world.problems) if world.kind == "training" else 1
        if world.slots // world.shards < least:
            raise InputError(
                f"shards: value is {world.shards}; allowed is at most {world.slots // least}, so "
                f"that each has a slot for each of {least} problems"
            )
        self.shards = world.shards
        self.batch_size = torch.Size([world.slots])
        workers = min(processes, self.shards)
        self._start(world, seed, [range(w, self.shards, workers) for w in range(workers)])

    @abstractmethod
    def _start(self, world: World, seed: int, dealt: Sequence[Sequence[int]]) -> None:
        """Starts a worker for each of `dealt`, with a Crew of these shards."""

    @abstractmethod
    def _ask(self, request: bytes) -> list[bytes]:
        """The answers of all workers, which do the same at the same time; see `serve`."""

    @property
    @abstractmethod
    def apart(self) -> bool:
        """Whether workers are other processes than this."""

    @abstractmethod
    def close(self) -> None:
        """Ends the workers."""

    def collect(self, explorer: TensorDictModule, steps: int) -> TensorDict:
        """(slots, steps) decisions; torch's own stream goes on as with one environment."""
        seeds = torch.randint(2**62, (self.shards - 1,)).tolist()
        streams = {0: torch.get_rng_state()}
        for shard, seed in enumerate(seeds, start=1):
            streams[shard] = torch.Generator().manual_seed(seed).get_state()
        found = self._all("collect", explorer, steps, streams)
        torch.set_rng_state(found[0][1])
        spent_s = sum(spent for _, _, spent in found.values())
        self.collected_s += spent_s
        if self.apart:
            self.elsewhere_s += spent_s
        return torch.cat([found[shard][0] for shard in range(self.shards)])

    def state_dict(self) -> dict[str, Any]:
        """Of all shards; with one shard that of its environment."""
        states = self._all("states")
        if self.shards == 1:
            return states[0]
        return {"shards": [states[shard] for shard in range(self.shards)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave; an InputError at another number of shards."""
        there = state.get("shards", [state])
        if len(there) != self.shards:
            raise InputError(
                f"state of the environment: {len(there)} shards; allowed is {self.shards}"
            )
        self._all("load", dict(enumerate(there)))

    def _all(self, name: str, *arguments: Any) -> dict[int, Any]:
        merged: dict[int, Any] = {}
        for answer in self._ask(pickle.dumps((name, arguments))):
            result, error = pickle.loads(answer)
            if error:
                raise InputError(error)
            merged |= result or {}
        return merged
