"""What tests of several packages share."""

import os
import tempfile

import pytest
from hypothesis import settings

# No test is about time: a machine that is busy must not fail one.
settings.register_profile("nettime", deadline=None)
settings.load_profile("nettime")

# Triton's own functions are interpreted only if this is set before anything imports Triton, and
# torch may do so in whichever test comes first.
os.environ.setdefault("TRITON_INTERPRET", "1")

# Steps of named models are kept by the tests' processes among themselves, not with the user's.
_KEPT = tempfile.TemporaryDirectory(prefix="nettime-tests-")
os.environ["NETTIME_CACHE"] = _KEPT.name


@pytest.fixture
def one_thread():
    """torch on one thread: results to the bit, and no waiting for other workers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
