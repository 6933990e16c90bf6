"""Linear layers y = x·Wᵀ under a mask; one file is one kernel, a Layer class bound to KERNEL."""
