"""What every Keyferry service needs, and nothing that only one of them does.

Limits, checked by the import rules and by a test over the words used here: no domain noun (order, offer, game key, the
supplier's name) appears in a name; importing a module does no I/O; services never import one another, only generated
stubs.
"""
