"""Real kernels, by machine: what an estimate is held against."""
