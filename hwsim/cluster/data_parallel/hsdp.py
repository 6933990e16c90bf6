"""Hybrid: FSDP inside each node, and each node holds the whole model.

Weights and gradients are gathered and scattered over the fast links of a node alone; between nodes
each card sums up its own share of the gradients.

Source: Zhao et al. 2023 (PyTorch FSDP), section 3.2.2 (hybrid sharding).
"""

from hwsim.cluster.data_parallel._form import Form

FORM = Form(3, "all_gather", "all_gather", "reduce_scatter", across="all_reduce", in_node=True)
