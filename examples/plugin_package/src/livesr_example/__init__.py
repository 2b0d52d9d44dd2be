"""A modality and a sink for livesr."""
