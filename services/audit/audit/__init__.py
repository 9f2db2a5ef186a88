"""The append-only log of who did what.

It writes down, hides what is personal under a key per person, and lists. It refuses to change or delete an entry, to
judge what others do, and to know any secret but its own.
"""
