"""torchvision, whose compiled part may be of another build than torch.

Nothing here needs that part, but its import, which timm, transformers and Lightning cause, asks
for the names of its operators.
"""

import importlib
import importlib.util
import re

import torch

_DEFINED: list = []


def torchvision():
    """The package, imported; None where it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    for _ in range(8):
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            found = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if found is None:
                raise
            _DEFINED.append(torch.library.Library("torchvision", "FRAGMENT"))
            _DEFINED[-1].define(f"{found[1]}(Tensor x) -> Tensor")
    raise ImportError("torchvision: its compiled part does not fit this torch")
