"""The threads of a run, one class each: what a thread alone owns is a field of its class."""
