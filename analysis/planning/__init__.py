"""Before anyone trains: which size, sparsity and length reach the lowest loss in a net time."""
