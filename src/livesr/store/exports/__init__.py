"""A store, or a part of it, as files of other programs.

`part.py` says what is taken; each other file writes one format. All read plane by plane, and hold
no more than one time point; a prediction says in each of them that it is one.
"""
