"""A shop's whole side of Keyferry over NATS, to be copied as a folder: tells of paid orders, follows what they come to.

Needs `nats-py`, `protobuf` and Keyferry's contracts (`protos/`), and nothing else of Keyferry. `orders.py` is the
shop's database, `following.py` what goes over the wire, `python -m follow_orders shop.sqlite3` the process.
"""
