"""Look-up with weights in bfloat16: for weights that come from main memory."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu.linear.lookup import LookupLayer


class LookupBf16Layer(LookupLayer):
    """`lookup` with weights rounded to bfloat16: 2.75 bytes a lane.

    It gains where those bytes are the bound; from caches the look-ups are, and it gains nothing.
    Products and sums are float32: a bfloat16 becomes one by a shift. Results are exact within
    rounding for the rounded weights, which differ by up to 2⁻⁸ of their size from the given ones.
    """

    name = "lookup_bf16"
    value_type = np.uint16


KERNEL = LookupBf16Layer
