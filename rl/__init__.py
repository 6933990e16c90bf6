"""rl: learning a sparsity schedule against net training time."""
