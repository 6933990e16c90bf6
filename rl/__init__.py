"""rl: learning a sparsity schedule against net training time."""

import gymnasium

if "SparseTraining-v0" not in gymnasium.registry:
    gymnasium.register(id="SparseTraining-v0", entry_point="rl.envs.gym:SparseTraining")
