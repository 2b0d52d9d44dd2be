"""How good a separation is: metrics, simulated sequences with truth, the score of an engine as a run delivers it."""
