"""The wrapped DEKs in vault's own PostgreSQL database, read and moved in small batches by the index of their KEKs."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from chassis.database import Database
from chassis.outbox import Outbox
from chassis.request_log import earlier_answer, keep_answer
from google.protobuf.empty_pb2 import Empty
from sqlalchemy import func, select, text

from vault.adapters import announcements
from vault.adapters.tables import KEY
from vault.domain.key import WrappedDek
from vault.ports import Rewrapped, RewrapReport

# An index-only scan of so many takes milliseconds, however many keys there are.
COUNTED_AT_ONCE = 50_000

# One look into the index for each version, not one for each key.
_VERSIONS = text(
    """
    SELECT version FROM (
        WITH RECURSIVE used AS (
            SELECT min(kek_version) AS version FROM sealed_key
            UNION ALL
            SELECT (SELECT min(kek_version) FROM sealed_key WHERE kek_version > used.version)
                FROM used WHERE used.version IS NOT NULL
        )
        SELECT version FROM used WHERE version IS NOT NULL
    ) AS found
    """
)
# Rows that somebody holds (a release, a revocation, another replica that rewraps) are left for the next look: neither
# waits for the other. The lock and the comparison are of the same moment.
_REPLACE = text(
    """
    WITH piece AS (
        SELECT * FROM unnest(
            CAST(:key_ids AS text[]), CAST(:old AS bytea[]), CAST(:old_versions AS text[]),
            CAST(:new AS bytea[]), CAST(:new_versions AS text[])
        ) AS given(key_id, old, old_version, new, new_version)
    ), held AS (
        SELECT sealed_key.key_id FROM sealed_key JOIN piece USING (key_id)
            WHERE sealed_key.wrapped_dek = piece.old AND sealed_key.kek_version = piece.old_version
            ORDER BY sealed_key.key_id FOR NO KEY UPDATE OF sealed_key SKIP LOCKED
    )
    UPDATE sealed_key SET wrapped_dek = piece.new, kek_version = piece.new_version
        FROM piece JOIN held USING (key_id)
        WHERE sealed_key.key_id = piece.key_id
            AND sealed_key.wrapped_dek = piece.old AND sealed_key.kek_version = piece.old_version
        RETURNING sealed_key.key_id
    """
)


class PostgresWrappedDeks:
    """Implements `vault.ports.WrappedDeks`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def counts(self) -> Mapping[str, int]:
        """See the port."""
        async with self._database.transaction() as connection:
            versions = (await connection.execute(_VERSIONS)).scalars().all()
        return {version: await self._count(version) for version in versions}

    async def _count(self, version: str) -> int:
        counted, after = 0, ""
        while True:
            some = (
                select(KEY.c.key_id)
                .where(KEY.c.kek_version == version, KEY.c.key_id > after)
                .order_by(KEY.c.key_id)
                .limit(COUNTED_AT_ONCE)
                .subquery()
            )
            async with self._database.transaction() as connection:
                number, last = (await connection.execute(select(func.count(), func.max(some.c.key_id)))).one()
            counted += int(number)
            if number < COUNTED_AT_ONCE:
                return counted
            after = last

    async def page(
        self, version: str, *, after: str, before: str | None, size: int
    ) -> Sequence[tuple[str, WrappedDek]]:
        """See the port."""
        statement = (
            select(KEY.c.key_id, KEY.c.wrapped_dek)
            .where(KEY.c.kek_version == version, KEY.c.key_id > after)
            .order_by(KEY.c.key_id)
            .limit(size)
        )
        if before is not None:
            statement = statement.where(KEY.c.key_id <= before)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(statement)).all()
        return [(row.key_id, WrappedDek(row.wrapped_dek, version)) for row in rows]

    async def replace(self, pieces: Sequence[Rewrapped]) -> Collection[str]:
        """See the port."""
        if not pieces:
            return ()
        given = {
            "key_ids": [piece.key_id for piece in pieces],
            "old": [piece.old.data for piece in pieces],
            "old_versions": [piece.old.kek_version for piece in pieces],
            "new": [piece.new.data for piece in pieces],
            "new_versions": [piece.new.kek_version for piece in pieces],
        }
        async with self._database.transaction("vault.rewrap.move") as connection:
            return (await connection.execute(_REPLACE, given)).scalars().all()

    async def begin(self, report: RewrapReport, digest: bytes, *, now: datetime) -> None:
        """See the port."""
        request_id = report.wish.request_id
        async with self._database.transaction("vault.rewrap.begin") as connection:
            known = await earlier_answer(connection, request_id=request_id, digest=digest, response_class=Empty)
            if known is None:
                event = announcements.rewrap("keks.rewrap_started", report, now=now)
                await self._outbox.enqueue(connection, event)
                await keep_answer(connection, request_id=request_id, digest=digest, response=Empty())

    async def finish(self, report: RewrapReport, *, now: datetime) -> None:
        """See the port."""
        async with self._database.transaction("vault.rewrap.finish") as connection:
            event = announcements.rewrap("keks.rewrap_finished", report, now=now)
            await self._outbox.enqueue(connection, event)
