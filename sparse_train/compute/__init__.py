"""Real sparse CPU kernels in a training step."""
