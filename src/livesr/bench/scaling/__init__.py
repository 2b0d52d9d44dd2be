"""How time, memory and latency go with the size of a frame, the channels, the camera's rate and the
length of a run.

One file per part; each is a suite of its own, `scaling.size` and so on, so that one can be run
again. The last part of a result's name is where on its curve it lies.
"""
