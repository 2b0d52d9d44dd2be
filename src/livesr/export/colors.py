"""Colours of channels that nobody gave one."""

COLORS = ("00FF00", "FF00FF", "FFFF00", "00FFFF", "FF8000", "FFFFFF")
"""RRGGBB, in the order in which channels take them."""
