"""Measurements that the project claims: one file prints one kind of figure."""
