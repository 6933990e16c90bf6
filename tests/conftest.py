"""What tests of several packages share."""

import pytest


@pytest.fixture
def one_thread():
    """torch on one thread: results to the bit, and no waiting for other workers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
