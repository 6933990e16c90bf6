"""Data from files and from what is installed, read safely."""
