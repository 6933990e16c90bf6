"""The optimizer's state and the gradients are shared out.

Source: Rajbhandari et al. 2020 (ZeRO), section 5.2; bytes: section 7.
"""

from hwsim.cluster.data_parallel._form import Form

FORM = Form(2, after_backward="reduce_scatter", after_update="all_gather")
