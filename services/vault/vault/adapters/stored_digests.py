"""The versions of digests in vault's own PostgreSQL database, found and counted by their index."""

from chassis.database import Database
from sqlalchemy import text

# So many take a fraction of a statement's time, however many keys there are.
COUNTED_AT_ONCE = 50_000

_VERSION = "split_part(fingerprint, '.', 1)"
# One look into the index for each version, not one for each key.
VERSIONS = text(
    f"""
    SELECT version FROM (
        WITH RECURSIVE used AS (
            SELECT min({_VERSION}) AS version FROM sealed_key
            UNION ALL
            SELECT (SELECT min({_VERSION}) FROM sealed_key WHERE {_VERSION} > used.version)
                FROM used WHERE used.version IS NOT NULL
        )
        SELECT version FROM used WHERE version IS NOT NULL
    ) AS found
    """  # noqa: S608 # a constant
)
COUNT = text(
    f"""
    SELECT count(*), max(key_id) FROM (
        SELECT key_id FROM sealed_key WHERE {_VERSION} = :version AND key_id > :after
            ORDER BY {_VERSION}, key_id LIMIT :most
    ) AS batch
    """  # noqa: S608 # a constant
)


class PostgresStoredDigests:
    """Implements `vault.ports.StoredDigests`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def versions(self) -> frozenset[str]:
        """See the port."""
        async with self._database.transaction() as connection:
            return frozenset((await connection.execute(VERSIONS)).scalars())

    async def count(self, version: str) -> int:
        """See the port."""
        counted, after = 0, ""
        while True:
            values = {"version": version, "after": after, "most": COUNTED_AT_ONCE}
            async with self._database.transaction() as connection:
                number, last = (await connection.execute(COUNT, values)).one()
            counted += int(number)
            if number < COUNTED_AT_ONCE:
                return counted
            after = last
