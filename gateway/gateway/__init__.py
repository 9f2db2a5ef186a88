"""The HTTP edge: the only public port.

Turns browsers, API clients and the supplier's webhooks into calls of fulfillment and events on JetStream, and their
answers into pages, JSON and problem documents. It refuses to be anything more: it owns no database, knows no rule
about buying or keys, and holds a key's plaintext only for the one answer to a caller without JavaScript.
"""
