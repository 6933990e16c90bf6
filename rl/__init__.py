"""rl: learning a sparsity schedule against net training time."""

import gymnasium

gymnasium.register(id="SparseTraining-v0", entry_point="rl.envs.gym:SparseTraining")
