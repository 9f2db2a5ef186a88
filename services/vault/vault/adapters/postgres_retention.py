"""Keys that end, objects that are left, and owners who are forgotten."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from chassis.request_log import earlier_answer, keep_answer
from google.protobuf.struct_pb2 import Struct
from sqlalchemy import ColumnElement, and_, delete, func, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.adapters.tables import DELIVERY, KEY, KNOWN_ACCESS, record_of
from vault.domain.key import NOBODY, KeyRecord, KeyState
from vault.domain.retention import Retention

# Words of the indexes, not parameters: a prepared statement must show which of them serves it.
_SHREDDED: ColumnElement[str] = literal_column(f"'{KeyState.SHREDDED.value}'")
_KEPT = KEY.c.state != _SHREDDED
_LEFT = and_(KEY.c.state == _SHREDDED, KEY.c.object_delete_time.is_(None))
_OWED = and_(KEY.c.state.in_([KeyState.SEALING.value, KeyState.SEALED.value]), KEY.c.open_time.is_(None))


class PostgresRetentionRows:
    """Implements `vault.ports_keeping.RetentionRows`."""

    _connection: AsyncConnection

    async def lock_expired(self, retention: Retention, *, limit: int, now: datetime) -> Sequence[KeyRecord]:
        """Return and lock keys whose retention is over."""
        opened = KEY.c.open_time
        unopened = func.greatest(KEY.c.create_time, KEY.c.revoke_time)
        found: list[KeyRecord] = []
        # Two statements, each read from an index of its own.
        for only, since, kept in (
            (opened.is_not(None), opened, retention.opened),
            (opened.is_(None), unopened, retention.unopened),
        ):
            statement = select(KEY).where(_KEPT, only, since <= now - kept).order_by(since).limit(limit - len(found))
            rows = await self._connection.execute(statement.with_for_update(skip_locked=True))
            found += [record_of(row) for row in rows.all()]
        return found

    async def shred(
        self, key_ids: Collection[str], *, now: datetime, delete_at: datetime, expired: bool = False
    ) -> None:
        """Destroy the wrapped DEKs of locked keys."""
        gone = {"state": KeyState.SHREDDED.value, "wrapped_dek": None, "kek_version": None, "shred_time": now}
        ended = {"expire_time": now if expired else None, "object_retry_time": delete_at}
        await self._connection.execute(update(KEY).where(KEY.c.key_id.in_(key_ids)).values({**gone, **ended}))

    async def lease_objects(self, *, limit: int, now: datetime, until: datetime) -> Sequence[tuple[KeyRecord, int]]:
        """Return destroyed keys whose objects are to be deleted now."""
        due = (
            select(KEY.c.key_id)
            .where(_LEFT, or_(KEY.c.object_retry_time.is_(None), KEY.c.object_retry_time <= now))
            .order_by(KEY.c.object_retry_time.nulls_first())
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        key_ids = list((await self._connection.execute(due)).scalars())
        if not key_ids:
            return ()
        statement = (
            update(KEY)
            .where(KEY.c.key_id.in_(key_ids))
            .values(object_retry_time=until, object_tries=KEY.c.object_tries + 1)
            .returning(KEY)
        )
        return [(record_of(row), row.object_tries) for row in (await self._connection.execute(statement)).all()]

    async def object_deleted(self, key_id: str, *, now: datetime) -> None:
        """Note that a destroyed key's object is gone."""
        await self._change_left(KEY.c.key_id == key_id, object_delete_time=now)

    async def object_waits(self, key_id: str, *, until: datetime) -> None:
        """Let the deletion of an object be tried again, but not before."""
        await self._change_left(KEY.c.key_id == key_id, object_retry_time=until)

    async def _change_left(self, which: ColumnElement[bool], **times: datetime) -> None:
        await self._connection.execute(update(KEY).where(_LEFT, which).values(times))

    async def read_objects_left(self) -> tuple[int, datetime | None]:
        """Count the destroyed keys whose objects may still be there."""
        statement = select(func.count(), func.min(KEY.c.shred_time)).where(_LEFT)
        count, earliest = (await self._connection.execute(statement)).one()
        return count, earliest

    async def read_owed(self, owners: Collection[str], *, most: int) -> tuple[int, Sequence[str]]:
        """Count an owner's keys that could still be opened for the first time."""
        owed = and_(KEY.c.owner_digest.in_(owners), _OWED)
        count = (await self._connection.execute(select(func.count()).where(owed))).scalar_one()
        orders = select(KEY.c.order_id).where(owed).distinct().order_by(KEY.c.order_id).limit(most)
        return count, list((await self._connection.execute(orders)).scalars())

    async def lock_owned(self, owners: Collection[str], *, limit: int, with_owed: bool) -> Sequence[KeyRecord]:
        """Return and lock an owner's keys."""
        statement = select(KEY).where(KEY.c.owner_digest.in_(owners))
        if not with_owed:
            statement = statement.where(~_OWED)
        statement = statement.order_by(KEY.c.key_id).limit(limit).with_for_update()
        return [record_of(row) for row in (await self._connection.execute(statement)).all()]

    async def forget_owner(self, key_ids: Collection[str]) -> None:
        """Make locked keys nobody's."""
        await self._connection.execute(update(KEY).where(KEY.c.key_id.in_(key_ids)).values(owner_digest=NOBODY))
        await self._connection.execute(
            update(DELIVERY).where(DELIVERY.c.key_id.in_(key_ids)).values(network="", device="")
        )

    async def forget_access(self, owners: Collection[str]) -> None:
        """Remove everything by which an owner is known."""
        await self._connection.execute(delete(KNOWN_ACCESS).where(KNOWN_ACCESS.c.owner_digest.in_(owners)))

    async def read_counts(self, request_id: str, digest: bytes) -> Mapping[str, int] | None:
        """Return what a request was answered before."""
        known = await earlier_answer(self._connection, request_id=request_id, digest=digest, response_class=Struct)
        return None if known is None else {name: int(value.number_value) for name, value in known.fields.items()}

    async def keep_counts(self, request_id: str, digest: bytes, counts: Mapping[str, int]) -> None:
        """Keep what a request is answered."""
        response = Struct()
        response.update(counts)
        await keep_answer(self._connection, request_id=request_id, digest=digest, response=response)
