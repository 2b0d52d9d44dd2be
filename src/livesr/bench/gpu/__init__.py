"""Whether the runtimes of this computer agree, and how fast they are: what a GPU is checked with.

One file per suite, as everywhere in `livesr.bench`; `livesr bench gpu` runs all of them. Needs no
network. What cannot run here is left out with its reason; without a GPU the same suites check the
CPU's runtimes.
"""
