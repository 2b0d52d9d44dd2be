"""Camera frames in files: one file per format, one `Recording` for all."""
