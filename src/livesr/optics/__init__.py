"""Optics shared by reconstruction and simulation: pure functions of numpy arrays, no state, no input or output."""
