"""The ways in which raw frames become a super-resolution frame: one folder for each.

`modality.py` says what livesr asks of every one of them, `registry.py` finds them by name. A folder
holds everything that knows its modality, in files of the same names: `config.py` (its section of
rig.yaml), `modality.py` (its `Modality`), `reconstructor.py`, `monitors.py` (what watches a run).
"""
