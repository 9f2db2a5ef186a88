"""Vault's own PostgreSQL database."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from chassis.database import Database
from chassis.events import Event, derived_event_id
from chassis.outbox import Outbox
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.vault_events_pb2 import VaultKeyOpened
from keyferry.type.v1 import actor_pb2
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.domain.key import Binding, KeyRecord, KeyState, WrappedDek
from vault.ports import Authorization, Release, Viewer

SOURCE = "vault"
_metadata = MetaData()

KEY = Table(
    "sealed_key",
    _metadata,
    Column("key_id", Text, primary_key=True),
    Column("source_ref", Text, nullable=False),
    Column("seal_request_id", Text, nullable=False),
    Column("order_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("order_digest", Text, nullable=False),
    Column("owner_digest", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("wrapped_dek", LargeBinary, nullable=False),
    Column("kek_version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("object_sha256", LargeBinary),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("seal_time", DateTime(timezone=True)),
)

RELEASE = Table(
    "release_request",
    _metadata,
    Column("request_id", Text, primary_key=True),
    Column("request_digest", LargeBinary, nullable=False),
    Column("way", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("audit_sequence", BigInteger, nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


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


class PostgresKeyTransaction:
    """One transaction over keys, requests and the outbox."""

    def __init__(self, connection: AsyncConnection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    async def key(self, key_id: str) -> KeyRecord | None:
        """Return a key."""
        row = (await self._connection.execute(select(KEY).where(KEY.c.key_id == key_id))).one_or_none()
        return None if row is None else _record(row)

    async def key_by_source(self, source_ref: str) -> KeyRecord | None:
        """Return the key of a source."""
        row = (await self._connection.execute(select(KEY).where(KEY.c.source_ref == source_ref))).one_or_none()
        return None if row is None else _record(row)

    async def add(self, record: KeyRecord) -> bool:
        """Add a key; False when its source or its request id has one already."""
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
                wrapped_dek=record.dek.data,
                kek_version=record.dek.kek_version,
                state=record.state.value,
                generation=record.generation,
            )
            .on_conflict_do_nothing()
            .returning(KEY.c.key_id)
        )
        return (await self._connection.execute(statement)).first() is not None

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
                KEY.c.fingerprint.in_(fingerprints),
                KEY.c.key_id != record.key_id,
                KEY.c.state.in_([KeyState.SEALED.value, KeyState.HELD.value]),
            )
            .order_by(KEY.c.create_time)
            .limit(1)
        )
        return (await self._connection.execute(statement)).scalar_one_or_none()

    async def finish(self, record: KeyRecord, state: KeyState, *, object_sha256: bytes, now: datetime) -> bool:
        """Mark a key as stored; False, and it stays as it is, when somebody else moved it on."""
        statement = (
            update(KEY)
            .where(
                KEY.c.key_id == record.key_id,
                KEY.c.state == KeyState.SEALING.value,
                KEY.c.generation == record.generation,
            )
            .values(state=state.value, object_sha256=object_sha256, seal_time=now)
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

    async def authorization(self, request_id: str) -> Authorization | None:
        """Return what is kept of a request."""
        row = (await self._connection.execute(select(RELEASE).where(RELEASE.c.request_id == request_id))).one_or_none()
        if row is None:
            return None
        return Authorization(
            request_id=row.request_id,
            request_digest=row.request_digest,
            release=Release(row.way),
            key_id=row.key_id,
            audit_sequence=row.audit_sequence,
            expire_time=row.expire_time,
        )

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
        action = "key.held" if same_as else "key.sealed"
        details = {"content_type": record.content_type} | ({"same_as": same_as} if same_as else {})
        recorded = AuditRecorded(
            actor=actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=SOURCE),
            action=action,
            order_id=record.order_id,
            key_id=record.key_id,
            details=details,
            occur_time=_timestamp(now),
        )
        await self._tell(recorded, "audit.recorded", record.key_id, now, action, record.key_id)

    async def tell_denied(self, key_id: str, order_id: str, viewer: Viewer, *, request_id: str, now: datetime) -> None:
        """Put the audit fact of a denied access into the outbox."""
        recorded = AuditRecorded(
            actor=actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id=viewer.customer_id),
            action="key.access_denied",
            order_id=order_id,
            key_id=key_id,
            request_id=request_id,
            occur_time=_timestamp(now),
        )
        identity = ("key.access_denied", request_id, key_id, viewer.customer_id)
        await self._tell(recorded, "audit.recorded", key_id, now, *identity)

    async def tell_outcome(
        self, authorization: Authorization, record: KeyRecord, viewer: Viewer, *, failure: str, now: datetime
    ) -> None:
        """Put the outcome of a release into the outbox; a success also opens the key for fulfillment."""
        outcome = "failed" if failure else "released"
        action = f"{authorization.release.value}_{outcome}"
        recorded = AuditRecorded(
            actor=actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id=viewer.customer_id),
            action=action,
            order_id=record.order_id,
            key_id=record.key_id,
            request_id=authorization.request_id,
            details=_outcome_details(authorization, failure),
            occur_time=_timestamp(now),
        )
        await self._tell(recorded, "audit.recorded", record.key_id, now, action, authorization.request_id)
        if not failure:
            opened = VaultKeyOpened(key_id=record.key_id, order_id=record.order_id, open_time=_timestamp(now))
            await self._tell(
                opened, "vault.key.opened", record.key_id, now, "vault.key.opened", authorization.request_id
            )

    async def _tell(
        self, message: AuditRecorded | VaultKeyOpened, subject: str, about: str, now: datetime, *identity: str
    ) -> None:
        event_id = derived_event_id(SOURCE, *identity)
        event = Event.of(message, event_id=event_id, subject=subject, source=SOURCE, about=about, time=now)
        await self._outbox.enqueue(self._connection, event)


def _outcome_details(authorization: Authorization, failure: str) -> dict[str, str]:
    details = {"authorized_at": str(authorization.audit_sequence)}
    if failure:
        return {**details, "reason": failure}
    if authorization.release is Release.LINK:
        return {**details, "expire_time": authorization.expire_time.isoformat()}
    return details


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _record(row: Row[Any]) -> KeyRecord:
    return KeyRecord(
        key_id=row.key_id,
        source_ref=row.source_ref,
        seal_request_id=row.seal_request_id,
        order_id=row.order_id,
        item_id=row.item_id,
        binding=Binding(row.order_digest, row.owner_digest),
        content_type=row.content_type,
        fingerprint=row.fingerprint,
        dek=WrappedDek(row.wrapped_dek, row.kek_version),
        state=KeyState(row.state),
        generation=row.generation,
        object_sha256=row.object_sha256,
        seal_time=row.seal_time,
    )
