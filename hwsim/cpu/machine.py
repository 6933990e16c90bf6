"""Which machine a CPU's constants were measured on, and whether it is this one."""

from __future__ import annotations

import re

from hwsim.device import Device
from hwsim.measured.timing import processor

# As `hwsim.calibration` writes it into a parameter's source.
_WRITTEN = re.compile(
    r"(?:cpu(?: --quick)? on|records:) (.+?)(?: \(numba|, [A-Z][a-z]+, \d+ thread)"
)


def measured_on(device: Device) -> str:
    """The processor named in the sources of a device's constants; empty where none is."""
    found = _WRITTEN.search(device.sources.get("dense", ""))
    return found[1] if found else ""


def whose_price(device: Device) -> str:
    """One line: which processor a CPU's price is of, beside the one at hand; empty for others."""
    if device.model == "data_sheet_cpu":
        return f"{device.name}: from a data sheet, nothing was measured; this one is {processor()}"
    if device.model != "cpu":
        return ""
    there, here = measured_on(device), processor()
    check = f"nettime calibrate cpu --quick --data-sheet {device.name} --out mine.toml"
    if not there:
        return f"{device.name}: measured on an unnamed processor; this one is {here}: {check}"
    if there != here:
        return f"{device.name}: measured on {there}, this is {here}; to carry it over: {check}"
    if "scaled from" in device.sources["dense"]:
        return f"{device.name}: checked on a processor called {here}, as this one is"
    return (
        f"{device.name}: measured on a processor called {there}, as this one is; hosts of one name "
        f"differ, to check: {check}"
    )
