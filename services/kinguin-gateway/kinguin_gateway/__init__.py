"""Everything that knows the supplier's words and quirks. Buys at most once per reference; refuses to know customers."""
