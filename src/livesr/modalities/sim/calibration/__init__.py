"""What a real rig does not tell: pattern vectors, phases, modulation, raw order and OTF, estimated from raw frames."""
