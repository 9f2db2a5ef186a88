"""What the edge itself decides, without any input or output: standard library only."""
