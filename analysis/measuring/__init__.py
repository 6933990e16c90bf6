"""Real kernels timed on the masks of real runs."""
