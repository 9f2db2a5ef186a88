"""Notices of unusual accesses, in fulfillment's database."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from chassis.database import Database, notify
from chassis.outbox import Outbox
from sqlalchemy import ColumnElement, and_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.connection import DUE
from fulfillment.adapters.postgres import PostgresOrderTransaction
from fulfillment.adapters.tables import NOTICE, ORDER
from fulfillment.domain.model import KeyId, OrderId
from fulfillment.ports.notices import Access, News, NoticeDue


class PostgresNoticeTransaction(PostgresOrderTransaction):
    """One transaction over notices, on a connection that the caller commits."""

    async def want_notice(self, access: Access, *, now: datetime) -> None:
        """Let the owner be told; of one key and day only the first time."""
        statement = insert(NOTICE).values(
            key_id=access.key_id,
            day=access.day,
            order_id=access.order_id,
            access_time=access.time,
            news=[each.value for each in access.news],
            run_at=now,
            tries=0,
            failure="",
        )
        await self._connection.execute(statement.on_conflict_do_nothing(index_elements=["key_id", "day"]))
        notify(self._connection, DUE)

    async def notice_done(self, access: Access, *, now: datetime) -> None:
        """Note that the mail server took the notice."""
        await self._connection.execute(update(NOTICE).where(_is(access)).values(run_at=None, send_time=now, failure=""))


class PostgresNotices:
    """The rows of notices."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self, step: str = "") -> AsyncIterator[PostgresNoticeTransaction]:
        """Run a block in one transaction; what it commits is a step with failpoints around it."""
        async with self._database.transaction(step and f"fulfillment.{step}") as connection:
            yield self.within(connection)

    def within(self, connection: AsyncConnection) -> PostgresNoticeTransaction:
        """Work within a transaction that somebody else commits: a consumer's, with its inbox."""
        return PostgresNoticeTransaction(connection, self._outbox)

    async def due_notices(self, limit: int, *, lease: timedelta, now: datetime) -> Sequence[NoticeDue]:
        """Claim notices that are due."""
        async with self._database.transaction("fulfillment.claim_notices") as connection:
            due = (
                select(NOTICE.c.key_id, NOTICE.c.day)
                .where(NOTICE.c.run_at <= now)
                .order_by(NOTICE.c.run_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            places = [tuple(row) for row in (await connection.execute(due)).all()]
            if not places:
                return ()
            claimed = (
                update(NOTICE)
                .where(tuple_(NOTICE.c.key_id, NOTICE.c.day).in_(places), ORDER.c.order_id == NOTICE.c.order_id)
                .values(run_at=now + lease, tries=NOTICE.c.tries + 1)
                .returning(NOTICE, ORDER.c.email, ORDER.c.locale)
            )
            rows = (await connection.execute(claimed)).all()
        return [
            NoticeDue(
                Access(KeyId(row.key_id), OrderId(row.order_id), row.access_time, [News(each) for each in row.news]),
                row.email,
                row.locale,
                row.tries,
            )
            for row in rows
        ]

    async def notice_waits(self, access: Access, *, run_at: datetime | None, failure: str) -> None:
        """Note why a notice was not taken and when to try again."""
        async with self._database.transaction("fulfillment.notice_waits") as connection:
            await connection.execute(update(NOTICE).where(_is(access)).values(run_at=run_at, failure=failure))


def _is(access: Access) -> ColumnElement[bool]:
    return and_(NOTICE.c.key_id == access.key_id, NOTICE.c.day == access.day)
