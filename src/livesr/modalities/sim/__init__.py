"""Structured illumination microscopy (SIM)."""
