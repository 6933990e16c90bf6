"""Checkpoints of an agent in training: whole files, read without running anything in them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim import InputError
from hwsim.files import replacing
from rl.algorithms import Agent, make_agent
from rl.envs.interface import ScheduleEnv
from rl.rollouts import Rollouts
from rl.worlds import World
from sparse_train.data import tensor_files

FORMAT = 1


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        algorithm: a name in `rl.algorithms`; `settings` are its configuration's fields.
        world: what it learns in.
        agent, env: their `state_dict`s; `env` is empty before the first episode.
        curve: one row per iteration so far.
        cost: processor seconds of training so far.
        collected: those of them in which episodes were collected.
    """

    algorithm: str
    settings: dict[str, Any]
    world: World
    agent: dict[str, Any]
    env: dict[str, Any]
    curve: list[dict[str, float]]
    cost: float
    collected: float = 0.0

    @property
    def episodes(self) -> int:
        """Begun in training."""
        ended = sum(row["episodes"] for row in self.curve)
        return round(ended) + self.world.slots * len(self.curve)

    @property
    def pace(self) -> float:
        """Episodes a second of one processor."""
        return self.episodes / self.cost if self.cost > 0 else 0.0

    @property
    def collecting(self) -> float:
        """Share of the processor time that went into environments (and choices in them)."""
        return min(1.0, self.collected / self.cost) if self.cost > 0 else 0.0

    def restore(self) -> Agent[Any]:
        """The agent as it was.

        Raises:
            InputError: its weights are not those of such an agent, as a file of another version's
                may be.
        """
        agent = make_agent(self.algorithm, **self.settings)
        try:
            agent.load_state_dict(self.agent)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(
                f"agent of a checkpoint: its weights are not those of {self.algorithm} as it is "
                f"now ({reason}); allowed is one that this version has trained"
            ) from None
        return agent


def save(
    path: Path, agent: Agent[Any], world: World, env: ScheduleEnv | Rollouts,
    curve: list[dict[str, float]], cost: float, collected: float = 0.0,
) -> None:  # fmt: skip
    """Writes a checkpoint, whole or not at all."""
    content = {
        "format": FORMAT,
        "algorithm": agent.name,
        "settings": json.dumps(dataclasses.asdict(agent.config)),
        "world": json.dumps(dataclasses.asdict(world)),
        "agent": agent.state_dict(),
        "env": env.state_dict(),
        "curve": curve,
        "cost": cost,
        "collected": collected,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        tensor_files.write(content, part)


def load(path: Path) -> Saved:
    """Reads a checkpoint.

    Raises:
        InputError: there is none, it is damaged, or of another format.
    """
    content = tensor_files.read(path, f"checkpoint {path}")
    try:
        if content["format"] != FORMAT:
            raise InputError(
                f"checkpoint {path}: format is {content['format']}; allowed is {FORMAT}"
            )
        settings = {k: _plain(v) for k, v in json.loads(content["settings"]).items()}
        return Saved(
            content["algorithm"], settings, World.from_json(json.loads(content["world"])),
            content["agent"], content["env"], content["curve"], content["cost"],
            content.get("collected", 0.0),
        )  # fmt: skip
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"checkpoint {path}: cannot be read ({reason[:120]})") from None


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
