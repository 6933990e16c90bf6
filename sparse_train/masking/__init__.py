"""Masks on a model: which weights, their budgets, their optimizer state, their updates."""
