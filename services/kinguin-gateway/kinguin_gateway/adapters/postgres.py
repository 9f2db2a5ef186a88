"""Purchases in PostgreSQL."""

from kinguin_gateway.adapters.postgres_attempts import PostgresAttempts
from kinguin_gateway.adapters.postgres_keys import PostgresKeys
from kinguin_gateway.adapters.postgres_looks import PostgresLooks
from kinguin_gateway.adapters.postgres_outcomes import PostgresOutcomes


class PostgresPurchases(PostgresAttempts, PostgresOutcomes, PostgresLooks, PostgresKeys):
    """Implements `kinguin_gateway.ports.purchases.Purchases`: one row for each external id, seen from four sides."""
