"""A run that takes a second: a small text, a small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparse_train.runs.config import TrainConfig

WORDS = ("mask", "weight", "grow", "drop", "layer", "dense", "sparse", "step", "net", "time")


def write_text(folder: Path, files: int = 60) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(files):
        words = rng.choice(WORDS, 60)
        (folder / f"{i:03d}.txt").write_text(" ".join(words), encoding="utf-8")
    return folder


def tiny(text: Path, **changes) -> TrainConfig:
    steps = changes.get("steps", 16)
    settings = {
        "task_options": {
            "text": str(text), "vocabulary_size": 280, "tokens": 16, "evaluation_windows": 8,
        },
        "model_options": {"layers": 1, "width": 16, "heads": 2, "ffn": 32},
        "algorithm": "rigl", "density": 0.3, "update_interval": 3 if steps > 5 else 1,
        "steps": 16, "batch_size": 4,
        "warmup_steps": 2, "eval_interval": 5, "checkpoint_interval": 4, "threads": 1,
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})
