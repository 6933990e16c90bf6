"""From recorded runs to a page."""
