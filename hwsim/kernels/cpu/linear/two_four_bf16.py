"""2:4 with weights in bfloat16: where a batch of one is bound by the weights' bytes."""

from __future__ import annotations

import numpy as np

from hwsim.kernels.cpu import two_four_passes as passes
from hwsim.kernels.cpu.linear.two_four import TwoFourLayer


class TwoFourBf16Layer(TwoFourLayer):
    """`two_four` with weights rounded to bfloat16: 2.25 bytes a weight.

    Products and sums are float32: a bfloat16 becomes one by a shift. Results are exact within
    rounding for the rounded weights, which differ by up to 2⁻⁸ of their size from the given ones.
    """

    name = "two_four_bf16"
    value_type = np.uint16
    gather = staticmethod(passes.gather_rounded)


KERNEL = TwoFourBf16Layer
