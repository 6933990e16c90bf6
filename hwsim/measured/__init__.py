"""Real kernels timed: cases, records, and prices held against them."""
