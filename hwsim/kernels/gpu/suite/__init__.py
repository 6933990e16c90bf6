"""What the GPU suite runs: cases, whole steps and the clock. Imports torch."""
