"""From a trained torch network to the files of an engine. Needs the `train` extra.

One file per target.
"""
