"""Agents held against opponents: judged, stored, drawn, written down."""
