"""The foreign systems of the log: PostgreSQL and JOSE."""
