"""Measurements of whole steps: reading them, building their models, holding prices against them."""
