"""Weights too are shared out, and gathered before a part is computed, forward and backward.

Source: Rajbhandari et al. 2020 (ZeRO), section 5.3; Zhao et al. 2023 (PyTorch FSDP), section 3.3,
for what is prefetched.
"""

from hwsim.cluster.data_parallel._form import Form

FORM = Form(3, "all_gather", "all_gather", "reduce_scatter")
