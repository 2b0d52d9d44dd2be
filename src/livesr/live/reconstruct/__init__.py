"""From the raw frames of one time point to one picture; every method has the shape of `Reconstructor`."""
