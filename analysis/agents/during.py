"""The unseen network while an agent learns: the second half of algorithm 1, again and again.

Source: Tessera et al. (2022), "Just-in-time sparsity: learning dynamic sparsity schedules",
algorithm 1.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from analysis.agents.judge import Test
from hwsim.files import replacing
from rl.agents import checkpoint, learn

JUDGED = "judged.csv"
_FIELDS = ("iteration", "device", "speed_up", "reached", "density")


@dataclass(frozen=True)
class WhileLearning:
    """Plays the agent of `folder`, frozen, after every so many iterations; writes JUDGED there.

    Learning is not touched: the agent is read from its checkpoint, and environments have streams
    of their own. Rows: geometric mean of the speed-ups over dense, share that reached the target,
    mean density.

    Attributes:
        last: iteration after which it is always done.
    """

    folder: Path
    test: Test
    every: int
    last: int

    def __call__(self, iteration: int) -> list[dict[str, float | str]]:
        """What is new after the iteration: a row for each device, or nothing."""
        if iteration % self.every and iteration != self.last:
            return []
        saved = checkpoint.load(self.folder / learn.CHECKPOINT)
        agent, rate = saved.restore(), saved.world.reference or 1.0
        rows: list[dict[str, float | str]] = []
        for device in self.test.devices:
            place = self.test.place(device, 0, rate, rate)
            found = self.test.run(lambda _, seen: agent.act(seen), saved.world.mode, place).figures
            mean = float(found.speed_ups.prod() ** (1 / len(found.speed_ups)))
            rows.append({
                "iteration": iteration, "device": device, "speed_up": mean,
                "reached": float(found.reached.mean()), "density": found.mean_density,
            })  # fmt: skip
        self._write(rows)
        return rows

    def rows(self) -> list[dict[str, str]]:
        """All that was written, as text."""
        path = self.folder / JUDGED
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: list[dict[str, float | str]]) -> None:
        """The file with these rows at its end, whole or not at all."""
        # One that was killed after this had been written does the iteration again.
        before = [row for row in self.rows() if int(row["iteration"]) < int(rows[0]["iteration"])]
        path = self.folder / JUDGED
        with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, _FIELDS)
            out.writeheader()
            out.writerows([*before, *rows])
