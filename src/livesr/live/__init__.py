"""The live path: from camera frames to multicolour super-resolution frames, one file or folder per
step.
"""
