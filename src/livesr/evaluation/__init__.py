"""How good a separation is: metrics, the score of an engine as a run delivers it."""
