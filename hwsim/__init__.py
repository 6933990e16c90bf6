"""hwsim: what a mask costs on a machine.

Model + masks → Workload → Device → Estimate → net time. No torch, and nothing heavy at import.
"""

from typing import TYPE_CHECKING

from hwsim.lazy import lazy

if TYPE_CHECKING:
    from hwsim.device import Device
    from hwsim.errors import InputError
    from hwsim.estimate import Estimate
    from hwsim.mask import Mask
    from hwsim.net_time import net_time, time_to_target
    from hwsim.specification import device_names, load_device
    from hwsim.workload import Op, Workload, gemm

__all__ = [
    "Device",
    "Estimate",
    "InputError",
    "Mask",
    "Op",
    "Workload",
    "device_names",
    "gemm",
    "load_device",
    "net_time",
    "time_to_target",
]

lazy(__name__, {
    "Device": "hwsim.device",
    "Estimate": "hwsim.estimate",
    "InputError": "hwsim.errors",
    "Mask": "hwsim.mask",
    "Op": "hwsim.workload",
    "Workload": "hwsim.workload",
    "device_names": "hwsim.specification",
    "gemm": "hwsim.workload",
    "load_device": "hwsim.specification",
    "net_time": "hwsim.net_time",
    "time_to_target": "hwsim.net_time",
})  # fmt: skip
