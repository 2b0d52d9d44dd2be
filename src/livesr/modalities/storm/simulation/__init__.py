"""Simulated STORM: blinking fluorophores, a virtual rig, and drawn images."""
