"""livesr in napari: a reader of stores, layers that follow a run, sample data, widgets.

Owns what the manifest beside this file announces to napari (npe2); napari imports the modules when
it needs them, and no other part of livesr does. The reader needs no napari.
"""
