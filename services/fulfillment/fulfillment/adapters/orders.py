"""Transactions, pages and due mails over fulfillment's database."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from chassis.database import Database
from chassis.outbox import Outbox
from sqlalchemy import select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.postgres import PostgresOrderTransaction
from fulfillment.adapters.reading import read_fulfillments
from fulfillment.adapters.tables import ITEM, MAIL, ORDER
from fulfillment.domain.model import Fulfillment, OrderId, State
from fulfillment.ports.mail import MailDue


class PostgresOrders:
    """The rows of orders."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self, step: str = "") -> AsyncIterator[PostgresOrderTransaction]:
        """Run a block in one transaction; what it commits is a step with failpoints around it."""
        async with self._database.transaction(step and f"fulfillment.{step}") as connection:
            yield PostgresOrderTransaction(connection, self._outbox)

    def within(self, connection: AsyncConnection) -> PostgresOrderTransaction:
        """Work within a transaction that somebody else commits: a consumer's, with its inbox."""
        return PostgresOrderTransaction(connection, self._outbox)

    async def page(
        self, *, customer_id: str, state: State | None, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[Fulfillment]:
        """Return fulfillments, newest first."""
        statement = select(ORDER).order_by(ORDER.c.create_time.desc(), ORDER.c.order_id.desc()).limit(size)
        if customer_id:
            statement = statement.where(ORDER.c.customer_id == customer_id)
        if state is not None:
            statement = statement.where(ORDER.c.state == state.value)
        if after is not None:
            statement = statement.where(tuple_(ORDER.c.create_time, ORDER.c.order_id) < after)
        async with self._database.transaction() as connection:
            return await read_fulfillments(connection, (await connection.execute(statement)).all())

    async def due_mails(self, limit: int, *, lease: timedelta, now: datetime) -> Sequence[MailDue]:
        """Claim mails that are due."""
        async with self._database.transaction("fulfillment.claim_mails") as connection:
            due = (
                select(MAIL.c.order_id)
                .where(MAIL.c.run_at <= now)
                .order_by(MAIL.c.run_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            order_ids = list((await connection.execute(due)).scalars())
            if not order_ids:
                return ()
            await connection.execute(
                update(MAIL)
                .where(MAIL.c.order_id.in_(order_ids))
                .values(run_at=now + lease, lease_until=now + lease, tries=MAIL.c.tries + 1, claim=MAIL.c.claim + 1)
            )
            rows = await connection.execute(
                select(MAIL.c.order_id, MAIL.c.tries, MAIL.c.claim, ORDER.c.email, ORDER.c.locale)
                .join(ORDER, ORDER.c.order_id == MAIL.c.order_id)
                .where(MAIL.c.order_id.in_(order_ids))
            )
            names = await self._product_names(connection, order_ids)
            return [
                MailDue(OrderId(row.order_id), row.email, row.locale, names[row.order_id], row.tries, row.claim)
                for row in rows
            ]

    async def _product_names(self, connection: AsyncConnection, order_ids: Sequence[str]) -> Mapping[str, list[str]]:
        names: dict[str, list[str]] = {order_id: [] for order_id in order_ids}
        rows = await connection.execute(
            select(ITEM.c.order_id, ITEM.c.product_id, ITEM.c.product_name)
            .where(ITEM.c.order_id.in_(order_ids))
            .order_by(ITEM.c.order_id, ITEM.c.position)
        )
        for row in rows:
            names[row.order_id].append(row.product_name or row.product_id)
        return names

    async def extend_mails(self, claims: Mapping[OrderId, int], *, now: datetime, until: datetime) -> None:
        """Let leases that have not ended last longer."""
        if not claims:
            return
        # What is locked is being marked: waiting for it could only end in a deadlock.
        held = (
            select(MAIL.c.order_id)
            .where(tuple_(MAIL.c.order_id, MAIL.c.claim).in_(list(claims.items())), MAIL.c.lease_until > now)
            .with_for_update(skip_locked=True)
        )
        async with self._database.transaction("fulfillment.extend_mails") as connection:
            await connection.execute(
                update(MAIL).where(MAIL.c.order_id.in_(held)).values(run_at=until, lease_until=until)
            )

    async def mail_waits(self, order_id: OrderId, claim: int, *, run_at: datetime | None, failure: str) -> None:
        """Note why the mail was not taken and when to try again, unless another claim has it by now."""
        async with self._database.transaction("fulfillment.mail_waits") as connection:
            await connection.execute(
                update(MAIL)
                .where(MAIL.c.order_id == order_id, MAIL.c.claim == claim)
                .values(run_at=run_at, lease_until=None, failure=failure)
            )
