"""Where frames go: each sink one file behind the protocol of `sink.py`."""
