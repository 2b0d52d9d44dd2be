"""From the raw frames of one time point to one picture.

Every method has the shape of `Reconstructor`.
"""
