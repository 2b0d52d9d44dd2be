"""Widefield: every exposure is one frame."""
