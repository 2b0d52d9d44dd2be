"""Simulated SIM: the microscope, a virtual rig, and drawn time lapses with truth."""
