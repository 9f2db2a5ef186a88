"""Rules about buying from the supplier: pure, without time, randomness or anything to wait for."""
