"""The optimizer's state is shared out; weights are gathered once they are updated.

Source: Rajbhandari et al. 2020 (ZeRO), section 5.1; bytes: section 7.
"""

from hwsim.cluster.data_parallel._form import Form

FORM = Form(1, after_backward="reduce_scatter", after_update="all_gather")
