"""Networks, losses and the training loop. Needs the `train` extra (torch); nothing outside imports it at start."""
