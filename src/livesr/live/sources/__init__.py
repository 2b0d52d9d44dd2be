"""Where frames come from: each source one file."""
