"""Vault's own PostgreSQL database."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from chassis.database import Database
from chassis.outbox import Outbox
from chassis.request_log import earlier_answer, keep_answer
from google.protobuf.empty_pb2 import Empty
from sqlalchemy import and_, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.adapters import announcements
from vault.adapters.postgres_deliveries import PostgresDeliveryRows
from vault.adapters.postgres_retention import PostgresRetentionRows
from vault.adapters.tables import KEY, RELEASE, authorization_of, record_of
from vault.domain.familiarity import Kind
from vault.domain.key import KeyRecord, KeyState
from vault.errors import KeyCorrupted
from vault.ports import Authorization, KeyFilter, Viewer, Wish


class PostgresKeys:
    """The rows of keys."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["PostgresKeyTransaction"]:
        """Run a block in one transaction."""
        async with self._database.transaction() as connection:
            yield PostgresKeyTransaction(connection, self._outbox)


class PostgresKeyTransaction(PostgresDeliveryRows, PostgresRetentionRows):
    """One transaction over keys, requests and the outbox."""

    def __init__(self, connection: AsyncConnection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    async def key(self, key_id: str) -> KeyRecord | None:
        """Return a key."""
        row = (await self._connection.execute(select(KEY).where(KEY.c.key_id == key_id))).one_or_none()
        return None if row is None else record_of(row)

    async def key_by_source(self, source_ref: str) -> KeyRecord | None:
        """Return the key of a source."""
        row = (await self._connection.execute(select(KEY).where(KEY.c.source_ref == source_ref))).one_or_none()
        return None if row is None else record_of(row)

    async def add(self, record: KeyRecord) -> bool:
        """Add a key; False when its source or its request id has one already."""
        if record.dek is None:
            raise AssertionError("a key without a DEK is never added")
        statement = (
            insert(KEY)
            .values(
                key_id=record.key_id,
                source_ref=record.source_ref,
                seal_request_id=record.seal_request_id,
                order_id=record.order_id,
                item_id=record.item_id,
                order_digest=record.binding.order,
                owner_digest=record.binding.owner,
                content_type=record.content_type,
                fingerprint=record.fingerprint,
                other_fingerprints=list(record.other_fingerprints),
                wrapped_dek=record.dek.data,
                kek_version=record.dek.kek_version,
                state=record.state.value,
                generation=record.generation,
                create_time=record.create_time,
            )
            .on_conflict_do_nothing()
            .returning(KEY.c.key_id)
        )
        return (await self._connection.execute(statement)).first() is not None

    async def lock(self, key_ids: Collection[str]) -> Sequence[KeyRecord]:
        """Return and lock keys, in the order of their ids."""
        statement = select(KEY).where(KEY.c.key_id.in_(key_ids)).order_by(KEY.c.key_id).with_for_update()
        return [record_of(row) for row in (await self._connection.execute(statement)).all()]

    async def page(
        self, wanted: KeyFilter, *, size: int, after: tuple[datetime, str] | None = None
    ) -> Sequence[KeyRecord]:
        """Return keys in the order of (create_time, key_id)."""
        statement = select(KEY).order_by(KEY.c.create_time, KEY.c.key_id).limit(size)
        if wanted.order_id:
            statement = statement.where(KEY.c.order_id == wanted.order_id)
        if wanted.start_time is not None:
            statement = statement.where(KEY.c.create_time >= wanted.start_time)
        if wanted.end_time is not None:
            statement = statement.where(KEY.c.create_time < wanted.end_time)
        if after is not None:
            statement = statement.where(tuple_(KEY.c.create_time, KEY.c.key_id) > after)
        return [record_of(row) for row in (await self._connection.execute(statement)).all()]

    async def same_key(self, record: KeyRecord, fingerprints: Sequence[str]) -> str | None:
        """Return the id of an earlier key with one of these fingerprints.

        Locks the fingerprint until the transaction ends, so that of two sealed at the same time the second sees the
        first.
        """
        for fingerprint in sorted(fingerprints):
            await self._connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:fingerprint, 1))"), {"fingerprint": fingerprint}
            )
        statement = (
            select(KEY.c.key_id)
            .where(
                or_(
                    KEY.c.fingerprint.in_(fingerprints),
                    # In these words, since the index holds only what has some.
                    and_(text("other_fingerprints <> '{}'"), KEY.c.other_fingerprints.overlap(list(fingerprints))),
                ),
                KEY.c.key_id != record.key_id,
                KEY.c.state != KeyState.SEALING.value,
            )
            .order_by(KEY.c.create_time, KEY.c.key_id)
            .limit(1)
        )
        return (await self._connection.execute(statement)).scalar_one_or_none()

    async def finish(
        self, record: KeyRecord, state: KeyState, *, object_sha256: bytes, now: datetime, same_as: str | None = None
    ) -> bool:
        """Mark a key as stored; False, and it stays as it is, when somebody else moved it on."""
        statement = (
            update(KEY)
            .where(
                KEY.c.key_id == record.key_id,
                KEY.c.state == KeyState.SEALING.value,
                KEY.c.generation == record.generation,
            )
            .values(state=state.value, object_sha256=object_sha256, seal_time=now, same_key_id=same_as)
            .returning(KEY.c.key_id)
        )
        return (await self._connection.execute(statement)).first() is not None

    async def next_generation(self, record: KeyRecord) -> None:
        """Move a key that is being sealed on to the next name."""
        statement = (
            update(KEY)
            .where(
                KEY.c.key_id == record.key_id,
                KEY.c.state == KeyState.SEALING.value,
                KEY.c.generation == record.generation,
            )
            .values(generation=record.generation + 1)
        )
        await self._connection.execute(statement)

    async def mark_opened(self, key_id: str, *, now: datetime) -> bool:
        """Mark a sealed key as opened; False when it is not sealed any more.

        One statement locks the row and, having waited for whoever had it, looks at its state again.
        """
        statement = (
            update(KEY)
            .where(KEY.c.key_id == key_id, KEY.c.state == KeyState.SEALED.value)
            .values(open_time=func.coalesce(KEY.c.open_time, now))
            .returning(KEY.c.key_id)
        )
        return (await self._connection.execute(statement)).first() is not None

    async def revoke(self, key_ids: Collection[str], *, now: datetime) -> None:
        """Revoke locked keys."""
        statement = update(KEY).where(KEY.c.key_id.in_(key_ids))
        await self._connection.execute(statement.values(state=KeyState.REVOKED.value, revoke_time=now))

    async def is_repeat(self, request_id: str, digest: bytes) -> bool:
        """Tell whether a request was done before."""
        earlier = await earlier_answer(self._connection, request_id=request_id, digest=digest, response_class=Empty)
        return earlier is not None

    async def note_done(self, request_id: str, digest: bytes) -> None:
        """Note that a request was done. Its answer is read from the rows: what it did is never undone."""
        await keep_answer(self._connection, request_id=request_id, digest=digest, response=Empty())

    async def authorization(self, request_id: str) -> Authorization | None:
        """Return what is kept of a request."""
        row = (await self._connection.execute(select(RELEASE).where(RELEASE.c.request_id == request_id))).one_or_none()
        return None if row is None else authorization_of(row)

    async def add_authorization(self, authorization: Authorization) -> None:
        """Keep a request; one that is kept already stays as it is."""
        statement = insert(RELEASE).values(
            request_id=authorization.request_id,
            request_digest=authorization.request_digest,
            way=authorization.release.value,
            key_id=authorization.key_id,
            audit_sequence=authorization.audit_sequence,
            expire_time=authorization.expire_time,
        )
        await self._connection.execute(statement.on_conflict_do_nothing(index_elements=["request_id"]))

    async def tell_sealed(self, record: KeyRecord, *, same_as: str | None, now: datetime) -> None:
        """Put the audit fact of a sealed or held key into the outbox."""
        await self._outbox.enqueue(self._connection, announcements.sealed(record, same_as=same_as, now=now))

    async def tell_revoked(self, records: Sequence[KeyRecord], wish: Wish, *, now: datetime) -> None:
        """Put the audit fact of each revoked key into the outbox."""
        events = [announcements.taken_back("key.revoked", record, wish, now=now) for record in records]
        await self._outbox.enqueue(self._connection, *events)

    async def tell_shredded(self, records: Sequence[KeyRecord], wish: Wish, *, now: datetime) -> None:
        """Put the audit fact and the event of each destroyed key into the outbox."""
        facts = [announcements.taken_back("key.shredded", record, wish, now=now) for record in records]
        events = [announcements.shredded(record, now=now) for record in records]
        await self._outbox.enqueue(self._connection, *facts, *events)

    async def tell_expired(self, records: Sequence[KeyRecord], *, now: datetime) -> None:
        """Put the audit fact and the event of each key whose retention was over into the outbox."""
        facts = [announcements.retention_over(record, now=now) for record in records]
        events = [announcements.expired(record, now=now) for record in records]
        await self._outbox.enqueue(self._connection, *facts, *events)

    async def tell_erased(self, wish: Wish, counts: Mapping[str, int], *, now: datetime) -> None:
        """Put the audit fact of a customer who was forgotten into the outbox."""
        await self._outbox.enqueue(self._connection, announcements.erased(wish, counts, now=now))

    async def tell_limited(self, record: KeyRecord, viewer: Viewer, *, request_id: str, now: datetime) -> None:
        """Put the audit fact of a key that was asked for too often into the outbox; once per key and hour."""
        event = announcements.limited(record, viewer, request_id=request_id, now=now)
        await self._outbox.enqueue(self._connection, event)

    async def tell_unusual(
        self, authorization: Authorization, record: KeyRecord, news: Collection[Kind], *, now: datetime
    ) -> None:
        """Put the event of an access of which something was new into the outbox."""
        await self._outbox.enqueue(self._connection, announcements.unusual(authorization, record, news, now=now))

    async def tell_denied(self, key_id: str, order_id: str, viewer: Viewer, *, request_id: str, now: datetime) -> None:
        """Put the audit fact of a denied access into the outbox."""
        event = announcements.denied(key_id, order_id, viewer, request_id=request_id, now=now)
        await self._outbox.enqueue(self._connection, event)

    async def tell_outcome(
        self, authorization: Authorization, record: KeyRecord, viewer: Viewer, *, failure: str, now: datetime
    ) -> None:
        """Put the outcome of a release into the outbox, and what fulfillment has to know of it."""
        events = [announcements.outcome(authorization, record, viewer, failure=failure, now=now)]
        if not failure:
            events.append(announcements.opened(authorization, record, now=now))
        if failure == KeyCorrupted.reason:
            events.append(announcements.corrupted(authorization, record, now=now))
        await self._outbox.enqueue(self._connection, *events)
