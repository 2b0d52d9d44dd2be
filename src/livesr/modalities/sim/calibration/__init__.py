"""What a real rig does not tell.

Pattern vectors, phases, modulation, raw order and OTF, estimated from raw frames.
"""
