"""Optics shared by reconstruction and simulation.

Pure functions of numpy arrays, no state, no input or output.
"""
