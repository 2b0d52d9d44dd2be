"""Localisation of blinking emitters (STORM)."""
