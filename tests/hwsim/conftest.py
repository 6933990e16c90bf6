"""Lets tests of these folders import `gpu_records`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
