"""Contenders trained side by side, with intervals and claims."""
