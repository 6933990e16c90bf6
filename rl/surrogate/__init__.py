"""A formula fitted to recorded runs."""
