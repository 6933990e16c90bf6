"""What a training run left behind, and what it would have cost on any device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.mask import Mask
from hwsim.net_time import cumulative_on
from hwsim.workload import PRODUCTS, Workload
from sparse_train.runs import run_folder
from sparse_train.runs.config import TrainConfig


@dataclass(frozen=True)
class Segment:
    """Consecutive training steps that do the same work.

    Attributes:
        first_step: counted from 1.
        steps: how many.
        workload: of each of them.
    """

    first_step: int
    steps: int
    workload: Workload


@dataclass(frozen=True)
class NetTime:
    """Net training time up to each validation; arrays of shape (evaluations,).

    Attributes:
        steps: training steps done by then.
        seconds, low_s, high_s: expected time of that many steps, and its interval.
    """

    steps: np.ndarray
    seconds: np.ndarray
    low_s: np.ndarray
    high_s: np.ndarray


@dataclass(frozen=True)
class TrainingRecord:
    """A run's folder, read. Also of a run that is under way, was killed or diverged.

    Attributes:
        folder: the run's.
        config: its settings.
        environment: Python, torch, threads, package version, machine.
        task: what the task said of its data: sizes and digests.
        training: one row per training step: `step`, `loss`, `learning_rate`, `gradient_norm`,
            `mask_update`, `elapsed_s`. The loss is that of the batch, before the step's update.
        measured: one row per evaluation and metric: `step`, `split`, `metric`, `value`, after the
            step's update. Step 0 is before training. Split "test" only where the config asks.
        densities: one row per mask version and layer: `version`, `first_step`, `layer`, `nnz`,
            `size`, `density`.
        figures: of the masks so far: `density`; `coverage`, the masked layers' share of the
            weights; `explored`, the share of their weights that was ever active (ITOP's Rs);
            `weight_bytes`, `index_bytes`, `moment_bytes` packed by the pattern; `dense_bytes` of
            the same layers dense. Empty for a dense run.
        gradient: dense gradients are needed "never", on "update" steps, or "always".
        compute: of a run with sparse kernels: `sparse`, the layers that use them under the first
            masks; `dense`, the other masked layers, each with the reason. Empty for other runs.
    """

    folder: Path
    config: TrainConfig
    environment: dict[str, Any]
    task: dict[str, Any]
    training: pl.DataFrame
    measured: pl.DataFrame
    densities: pl.DataFrame
    figures: dict[str, float | int]
    gradient: str
    compute: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> TrainingRecord:
        """Reads a run's folder.

        Raises:
            InputError: no run there, or a file of it that is broken.
        """
        folder = Path(folder)
        content = run_folder.read_config(folder)
        if content is None:
            raise InputError(f"run folder {folder}: no {run_folder.CONFIG} in it; not a run")
        try:
            record = cls(
                folder=folder,
                config=TrainConfig.from_json(content["config"]),
                environment=content["environment"],
                task=content["task"],
                training=run_folder.read_table(
                    folder / run_folder.METRICS, run_folder.METRICS_SCHEMA
                ),
                measured=run_folder.read_table(
                    folder / run_folder.EVALUATIONS, run_folder.EVALUATIONS_SCHEMA
                ),
                densities=run_folder.read_table(
                    folder / run_folder.DENSITIES, run_folder.DENSITIES_SCHEMA
                ),
                figures=run_folder.read_figures(folder),
                gradient=content["gradient"],
                compute=content.get("compute", {}),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder / run_folder.CONFIG}: {error} is missing") from None
        if record.steps and not len(record.densities) and run_folder.mask_versions(folder):
            raise InputError(
                f"{folder / run_folder.DENSITIES}: missing or empty, and the run has masks; "
                "restore it from a copy"
            )
        return record

    @cached_property
    def evaluations(self) -> pl.DataFrame:
        """One row per validation: `step`, `loss`, and a column per further metric of the task."""
        rows = self.measured.filter(pl.col("split") == "validation")
        return rows.pivot("metric", index="step", values="value").sort("step")

    @cached_property
    def test(self) -> dict[str, float]:
        """Metrics on the test set after the last step; empty unless the config asks for them."""
        rows = self.measured.filter(pl.col("split") == "test")
        return dict(rows.select("metric", "value").iter_rows())

    @property
    def steps(self) -> int:
        """Training steps recorded so far."""
        return len(self.training)

    @property
    def complete(self) -> bool:
        """Whether the run is at its end."""
        return run_folder.is_complete(self.folder)

    @cached_property
    def mean_density(self) -> float:
        """Active share of the masked weights, each mask for the steps it served; 1 if dense."""
        if not len(self.densities) or not self.steps:
            return 1.0
        versions = (
            self.densities.group_by("version")
            .agg(pl.col("first_step").first(), pl.col("nnz").sum(), pl.col("size").sum())
            .sort("version")
        )
        firsts = [*versions["first_step"].to_list(), self.steps + 1]
        shares = (versions["nnz"] / versions["size"]).to_list()
        steps = [min(end, self.steps + 1) - min(first, self.steps + 1)
                 for first, end in itertools.pairwise(firsts)]  # fmt: skip
        return sum(s * n for s, n in zip(shares, steps, strict=True)) / self.steps

    @property
    def wall_s(self) -> float:
        """Seconds this machine trained for, validations and interruptions not counted."""
        return max(self.training["elapsed_s"].to_list(), default=0.0)

    @cached_property
    def wall_seconds(self) -> np.ndarray:
        """(evaluations,): seconds this machine's steps took up to each validation."""
        steps = [0, *self.training["step"].to_list()]
        elapsed = [0.0, *self.training["elapsed_s"].to_list()]
        return np.interp(self.evaluations["step"].to_numpy(), steps, elapsed)

    @cached_property
    def published_flops(self) -> float:
        """FLOPs of all steps by the formulas of the papers: forward and twice that backward.

        3 f_D dense, 3 f_S static, 2 f_S + f_D with dense gradients in every step, and
        (3 f_S · ΔT + 2 f_S + f_D) / (ΔT + 1) with dense gradients in update steps. f_S is of each
        step's own masks. What the formulas leave out (optimizer, packing, updates) is in `pairs`.

        Source: Evci et al. 2020, appendix H.
        """
        from sparse_train.masking.figures import training_flops

        base = self.base_workload
        dense = base.phase("forward").flops
        if not self.mask_versions:
            return training_flops("dense", dense, dense) * self.steps
        updates = int(self.training["mask_update"].sum())
        kind = "never" if self.gradient == "update" and updates == 0 else self.gradient
        interval = max(1, round(self.steps / max(updates, 1)))
        return sum(
            training_flops(kind, forward, dense, interval) * count
            for _, forward, count in self.flops
        )

    @cached_property
    def flops(self) -> tuple[tuple[int, int, int], ...]:
        """(FLOPs of a step, of its forward pass, how many such steps) of each of `pairs`."""
        for _ in self.pairs():  # which leaves them here when it is through
            pass
        return self.__dict__["flops"]

    @cached_property
    def mask_versions(self) -> tuple[tuple[int, Path], ...]:
        """(first step that used it, file) of each mask version; empty for a dense run."""
        firsts = self.densities.group_by("version").agg(pl.col("first_step").first())
        return tuple(
            (first, run_folder.mask_path(self.folder, version))
            for version, first in sorted(firsts.iter_rows())
        )

    def masks(self, version: int) -> dict[str, Mask]:
        """Layer → mask of one version; 0 is the first, −1 the last."""
        if not -len(self.mask_versions) <= version < len(self.mask_versions):
            raise InputError(
                f"version: value is {version}; the run has {len(self.mask_versions)} mask versions"
            )
        return run_folder.read_masks(self.mask_versions[version][1])[1]

    @cached_property
    def base_workload(self) -> Workload:
        """One dense training step."""
        return run_folder.read_workload(self.folder)

    def iter_segments(self) -> Iterator[Segment]:
        """The whole run in order, one mask version in memory at a time.

        A mask update in step s acts on the masks before it: step s is priced as a growth step of
        the old version, the new one serves from s + 1. A layer whose mask did not change keeps its
        Mask object, so that its price is looked up, not computed.
        """
        base = self.base_workload
        priced = base.layers  # a layer that the model never uses does no work
        updates = self.training.filter(pl.col("mask_update"))["step"].to_list()
        firsts = [first for first, _ in self.mask_versions] or [1]
        masks: dict[str, Mask] = {}
        trained: dict[str, Mask] = {}
        for version, first in enumerate(firsts):
            last = firsts[version + 1] - 1 if version + 1 < len(firsts) else self.steps
            last = min(last, self.steps)
            if self.mask_versions:
                _, fresh, trained = run_folder.read_version(self.mask_versions[version][1])
                masks = {
                    n: masks[n] if masks.get(n) == m else m for n, m in fresh.items() if n in priced
                }
            ordinary = base.with_masks(masks)
            if masks and trained:
                ordinary = _training(ordinary, trained)
            elif self.gradient == "always":
                ordinary = ordinary.with_dense_gradients()
            # Who trains inactive weights updates by their magnitude, and needs no other gradient.
            dense_gradient = self.gradient != "never" and not (masks and trained)
            at = first
            for update in [u for u in updates if first <= u <= last]:
                if update > at:
                    yield Segment(at, update - at, ordinary)
                growth = ordinary.growth_step(dense_gradient=dense_gradient)
                yield Segment(update, 1, growth)
                at = update + 1
            if at <= last:
                yield Segment(at, last - at + 1, ordinary)
        self.__dict__["last_step"] = base.with_masks(masks)

    @cached_property
    def last_step(self) -> Workload:
        """An ordinary training step under the last masks."""
        if not self.mask_versions:
            return self.base_workload
        priced = self.base_workload.layers
        masks = {n: m for n, m in self.masks(-1).items() if n in priced}
        return self.base_workload.with_masks(masks)

    def segments(self) -> list[Segment]:
        """`iter_segments` as a list: all mask versions in memory."""
        return list(self.iter_segments())

    def pairs(self) -> Iterator[tuple[Workload, int]]:
        """(workload, steps) of the whole run in order: what net time is summed from."""
        flops = []
        for segment in self.iter_segments():
            step = segment.workload
            flops.append((step.flops, step.phase("forward").flops, segment.steps))
            yield step, segment.steps
        self.__dict__["flops"] = tuple(flops)

    def net_time(self, device: Device) -> NetTime:
        """Net training time up to each validation. The validations themselves cost nothing."""
        return self.net_times([device])[0]

    def net_times(self, devices: Sequence[Device]) -> list[NetTime]:
        """`net_time` on each device; every mask version is read once for all of them."""
        steps = self.evaluations["step"].to_numpy()
        return [NetTime(steps, *found) for found in cumulative_on(devices, self.pairs(), steps)]

    def seconds_at(self, device: Device) -> tuple[np.ndarray, np.ndarray]:
        """(steps, seconds), both (evaluations,): expected net time up to each validation."""
        time = self.net_time(device)
        return time.steps, time.seconds


def _training(step: Workload, trained: Mapping[str, Mask]) -> Workload:
    """The step where gradients and the optimizer reach the `trained` weights, not the active ones.

    Top-KAST trains more weights than it uses, SR-STE all of them.
    """
    ops = []
    for op in step:
        reached = (op.phase == "grad_weight" and op.kind in PRODUCTS) or op.kind == "optimizer"
        if reached and op.mask is not None and op.name in trained:
            mask = trained[op.name]
            op = op.with_mask(None if mask.nnz == mask.size else mask)
        ops.append(op)
    return Workload(tuple(ops), step.name)
