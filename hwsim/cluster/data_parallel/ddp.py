"""Every rank holds everything; gradients are summed up behind the backward pass.

Source: Li et al. 2020 (PyTorch Distributed), section 3.2.
"""

from hwsim.cluster.data_parallel._form import Form

FORM = Form(after_backward="all_reduce")
