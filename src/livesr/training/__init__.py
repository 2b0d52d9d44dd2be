"""Networks, losses and the training loop. Needs the `train` extra (torch).

Nothing outside imports it at start.
"""
