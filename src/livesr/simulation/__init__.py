"""Virtual specimens and the virtual microscope that images them."""
