"""Tiles through a pipeline: the SimPy reference and the recurrence equal to it."""
