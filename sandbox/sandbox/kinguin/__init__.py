"""A Kinguin to buy from without money: the supplier's public API, its rules, its webhooks, and its bad days.

It speaks `openapi.yaml` beside this file and enforces what the real supplier enforces; by itself it is a faithful
citizen. Over a second, private address (the control port) a test makes it misbehave and reads what was really sold.
It knows Kinguin's words only, never Keyferry's. See README.md for the command line, the control port and the products.
"""
