"""Compiled passes over masks, for patterns, kernels and prices."""
