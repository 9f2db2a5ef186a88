"""The addresses of the edge: parse, ask a port, render. No rules."""
