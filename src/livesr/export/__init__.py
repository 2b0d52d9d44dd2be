"""From a trained torch network to the files of an engine. Needs the `train` extra; one file per target."""
