"""An accelerator of your own, in a file, beside those that are shipped.

python examples/own_device.py
"""

import tempfile
from importlib import resources
from pathlib import Path

from hwsim import load_device
from sparse_train import models, workload


def main() -> None:
    shipped = resources.files("hwsim") / "devices" / "specs" / "wafer.toml"
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "mine.toml"
        # Every number has a unit and a source; a wrong one is an error that names its line.
        mine.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
        model, batch = models.build("bert-tiny", batch_size=8, sequence_length=64)
        step = workload(model, batch)
        for device in (load_device("wafer"), load_device(mine, clock_hz=2.2e9)):
            print(f"{device.name}: {device.estimate(step).seconds * 1e6:.1f} µs a dense step")


if __name__ == "__main__":
    main()
