"""FSDP that keeps gathered weights from the forward to the backward pass.

Source: Zhao et al. 2023 (PyTorch FSDP), section 3.2.1 (there: SHARD_GRAD_OP).
"""

from hwsim.cluster.data_parallel._form import Form

FORM = Form(2, "all_gather", "", "reduce_scatter")
