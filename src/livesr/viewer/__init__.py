"""Looking at what a run shows: compositing, the browser preview, playback of a store."""
