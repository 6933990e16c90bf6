"""A problem whose episodes take a fraction of a second: real training on a small text."""

import numpy as np
import pytest
import torch

from rl.runs.problems import SETTINGS, ProblemSetting
from sparse_train.population.train import AdamW

WORDS = ("mask", "weight", "grow", "drop", "layer", "dense", "sparse", "step", "net", "time")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The name of the task; its networks are "bert-LAYERSxWIDTH"."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(60):
        (folder / f"{i:03d}.txt").write_text(" ".join(rng.choice(WORDS, 60)), encoding="utf-8")
    options = {
        "text": str(folder), "vocabulary_size": 270, "tokens": 6, "hidden_share": 0.3,
        "evaluation_windows": 32,
    }  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        optimizer = AdamW(lr=0.02, warmup=2)
        patch.setitem(
            SETTINGS, "tiny", ProblemSetting("mlm", options, 8, 24, 3, optimizer, ("bert",))
        )
        yield "tiny"
    torch.set_num_threads(threads)
