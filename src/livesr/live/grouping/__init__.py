"""Exposures to raw stacks: each modality's grouping one file."""
