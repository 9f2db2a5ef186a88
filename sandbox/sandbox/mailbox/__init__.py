"""A mail server that delivers to nobody: it keeps every message and shows it.

It can be told to refuse mail, to drop the connection, or to lose its own answer, since real mail servers do all three.
"""
