"""Parallel forms, one file each: what each shares out, and which collectives it runs."""
