"""A Hugging Face model, priced dense, sparse and narrower. Needs `pip install transformers`.

    nettime estimate --model examples/hugging_face_model.py:make --density 0.2 --device wafer

`make` takes the share of its own width, so that the narrower dense model is priced too.
"""

from typing import Any

import torch

from hwsim import load_device
from sparse_train import workload


def make(width: float = 1.0) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A small GPT-2 with random weights (nothing is downloaded), and a batch."""
    from transformers import GPT2Config, GPT2LMHeadModel

    heads = 4
    size = max(1, round(32 * width)) * heads
    config = GPT2Config(vocab_size=1000, n_positions=64, n_embd=size, n_layer=2, n_head=heads)
    tokens = torch.zeros(2, 32, dtype=torch.long)
    return GPT2LMHeadModel(config), {"input_ids": tokens, "labels": tokens}


def main() -> None:
    for share in (1.0, 0.5):
        model, batch = make(share)
        seconds = load_device("wafer").estimate(workload(model, batch)).seconds
        print(f"wafer: {seconds * 1e6:.1f} µs a dense step at {share:.0%} of the width")


if __name__ == "__main__":
    main()
