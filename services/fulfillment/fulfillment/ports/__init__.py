"""What fulfillment needs from outside, in its own words: one module for each neighbour."""
