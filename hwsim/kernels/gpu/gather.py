"""Constant fan-in in Triton: every active neuron has equally many inputs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from hwsim.errors import InputError
from hwsim.kernels.gpu._rows import constants, rows_times, sampled
from hwsim.kernels.gpu.base import PackedWeight, TritonKernel, shape_of


@triton.jit
def _scatter(
    neurons, columns, values, dy, out, m, fan_in, chunk: tl.constexpr, width: tl.constexpr
):  # fmt: skip
    """out[column, :] += value · dy[neuron, :]; one program, one neuron, `width` of m."""
    index = tl.program_id(0)
    neuron = tl.load(neurons + index).to(tl.int64)
    at = tl.program_id(1) * width + tl.arange(0, width)
    inside = at < m
    gradient = tl.load(dy + neuron * m + at, mask=inside, other=0.0).to(tl.float32)
    for begin in range(0, fan_in, chunk):
        slot = begin + tl.arange(0, chunk)
        live = slot < fan_in
        entry = index.to(tl.int64) * fan_in + slot
        column = tl.load(columns + entry, mask=live, other=0).to(tl.int64)
        value = tl.load(values + entry, mask=live, other=0.0).to(tl.float32)
        tl.atomic_add(
            out + column[:, None] * m + at[None, :],
            value[:, None] * gradient[None, :],
            mask=live[:, None] & inside[None, :],
        )


class Gather(TritonKernel):
    """An index matrix (active neurons, fan-in); no row starts are read in the inner loop's place.

    Neurons without inputs are skipped and give zero. grad_input adds into its outputs atomically,
    since columns do not have equal counts: sums of float32 in no fixed order.

    Source: Lasby et al. 2023 (SRigL), the condensed representation.
    """

    name = "gather"

    def pack(self, weight: torch.Tensor, mask: torch.Tensor) -> PackedWeight:
        self.check_weight(weight, mask)
        counts = mask.sum(dim=1)
        neurons = counts.nonzero().flatten()
        fans = counts[neurons].unique()
        if len(fans) != 1:
            found = ", ".join(str(int(f)) for f in fans[:4]) or "none"
            raise InputError(
                f"mask: fan-ins of active neurons are {found}; allowed is one and the same"
            )
        fan_in = int(fans[0])
        columns = mask[neurons].nonzero(as_tuple=True)[1].view(-1, fan_in)
        values = weight[neurons].gather(1, columns)
        starts = torch.arange(
            0, (len(neurons) + 1) * fan_in, fan_in, dtype=torch.int32, device=weight.device
        )
        indices = {
            "neurons": neurons.to(torch.int32),
            "columns": columns.to(torch.int32),
            "starts": starts,
        }
        return PackedWeight(values.contiguous(), indices, shape_of(weight), longest=fan_in)

    def forward(self, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("x", x, packed.shape[1], packed.values)
        i = packed.indices
        active = rows_times(i["starts"], i["columns"].view(-1), packed.values.view(-1), None, x)
        y = torch.zeros((x.shape[0], packed.shape[0]), dtype=x.dtype, device=x.device)
        y[:, i["neurons"].long()] = active
        return y

    def grad_input(self, dy: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_operand("dy", dy, packed.shape[0], packed.values)
        m, i = dy.shape[0], packed.indices
        out = torch.zeros((packed.shape[1], m), dtype=torch.float32, device=dy.device)
        width = min(128, max(16, triton.next_power_of_2(m)))
        _scatter[(len(i["neurons"]), triton.cdiv(m, width))](
            i["neurons"], i["columns"], packed.values, dy.t().contiguous(), out, m,
            packed.values.shape[1], **constants(chunk=32, width=width),
        )  # fmt: skip
        return out.t().to(dy.dtype).contiguous()

    def grad_weight(self, dy: torch.Tensor, x: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        self.check_pair(dy, x, packed)
        i = packed.indices
        active = dy[:, i["neurons"].long()]
        found = sampled(i["starts"], i["columns"].view(-1), packed.longest, active, x)
        return found.view(packed.values.shape)

    def unpack(self, values: torch.Tensor, packed: PackedWeight) -> torch.Tensor:
        dense = torch.zeros(packed.shape, dtype=values.dtype, device=values.device)
        dense[packed.indices["neurons"].long()[:, None], packed.indices["columns"].long()] = values
        return dense


KERNEL = Gather()
