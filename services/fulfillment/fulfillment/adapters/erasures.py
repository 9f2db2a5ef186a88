"""Orders of a customer who is forgotten, and everything else in fulfillment's database that names them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from chassis.database import Database, notify
from chassis.outbox import Outbox
from chassis.tables import DEAD_LETTER, OUTBOX, REQUEST_LOG
from sqlalchemy import Column, ColumnElement, LargeBinary, Table, delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.connection import CHANGED
from fulfillment.adapters.postgres import PostgresOrderTransaction
from fulfillment.adapters.striking import struck
from fulfillment.adapters.tables import MAIL, NOTICE, ORDER, PURCHASE
from fulfillment.domain.erasure import FORGOTTEN
from fulfillment.domain.model import OrderId

# Rows that one statement looks through: well within its time, also where they are large.
STEP = 5_000


@dataclass(frozen=True, slots=True)
class _Kept:
    """A table of messages. What nobody can read may be removed where nobody will ever take it."""

    table: Table
    key: Column[Any]
    body: Column[Any]
    type_name: ColumnElement[str]
    is_unreadable_removed: bool = False


_KEPT = (
    _Kept(OUTBOX, OUTBOX.c.position, OUTBOX.c.data, OUTBOX.c.headers["ce-type"].astext),
    _Kept(REQUEST_LOG, REQUEST_LOG.c.request_id, REQUEST_LOG.c.response, REQUEST_LOG.c.method),
    _Kept(
        DEAD_LETTER,
        DEAD_LETTER.c.dead_letter_id,
        DEAD_LETTER.c.data,
        DEAD_LETTER.c.headers["ce-type"].astext,
        is_unreadable_removed=True,
    ),
)


class PostgresErasureTransaction(PostgresOrderTransaction):
    """One transaction over orders of a customer, on a connection that the caller commits."""

    async def orders_of(self, customer_id: str, *, after: str, limit: int) -> Sequence[OrderId]:
        """Return orders of a customer by their numbers."""
        rows = await self._connection.execute(
            select(ORDER.c.order_id)
            .where(ORDER.c.customer_id == customer_id, ORDER.c.order_id > after)
            .order_by(ORDER.c.order_id)
            .limit(limit)
        )
        return [OrderId(order_id) for order_id in rows.scalars()]

    async def forget_customer(self, order_id: OrderId, pseudonym: str) -> None:
        """Remove the customer from an order and from what belongs to it."""
        execute = self._connection.execute
        await execute(
            update(ORDER)
            .where(ORDER.c.order_id == order_id)
            .values(
                customer_id=pseudonym,
                email="",
                locale="",
                country_code="",
                digest=FORGOTTEN,
                version=ORDER.c.version + 1,
            )
        )
        await execute(update(PURCHASE).where(PURCHASE.c.order_id == order_id).values(customer_id=pseudonym))
        # A new claim: who is sending writes nothing over it, and least of all what the mail server said of the address.
        await execute(
            update(MAIL)
            .where(MAIL.c.order_id == order_id)
            .values(run_at=None, lease_until=None, claim=MAIL.c.claim + 1, failure="")
        )
        await execute(delete(NOTICE).where(NOTICE.c.order_id == order_id))
        notify(self._connection, CHANGED, order_id)


class PostgresErasures:
    """The rows that name customers."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self, step: str = "") -> AsyncIterator[PostgresErasureTransaction]:
        """Run a block in one transaction; what it commits is a step with failpoints around it."""
        async with self._database.transaction(step and f"fulfillment.{step}") as connection:
            yield PostgresErasureTransaction(connection, self._outbox)

    async def strike(self, customer_id: str, pseudonym: str) -> None:
        """Remove a customer from what was told, what was answered and what could not be handled."""
        for kept in _KEPT:
            after: Any = None
            # It ends: each step begins after the one before.
            while True:
                async with self._database.transaction("fulfillment.strike") as connection:
                    after = await _strike_step(connection, kept, customer_id, pseudonym, after)
                if after is None:
                    break


async def _strike_step(connection: AsyncConnection, kept: _Kept, customer_id: str, pseudonym: str, after: Any) -> Any:
    """Remove a customer from some messages, and return after which one the next begin; None where there are none."""
    begin = [] if after is None else [kept.key > after]
    step = select(kept.key).where(*begin).order_by(kept.key).limit(STEP).subquery()
    last = step.c[kept.key.name]
    end = (await connection.execute(select(last).order_by(last.desc()).limit(1))).scalar_one_or_none()
    if end is None:
        return None
    # Some that are found hold the same bytes by chance: whom a message names is said by who reads it.
    names = func.position(literal(customer_id.encode(), LargeBinary).op("IN")(kept.body)) > 0
    rows = await connection.execute(
        select(kept.key.label("key"), kept.body.label("body"), kept.type_name.label("type_name"))
        .where(*begin, kept.key <= end, names)
        .with_for_update()
    )
    for row in rows.all():
        body = struck(row.body, row.type_name or "", customer_id, pseudonym)
        if body is None and kept.is_unreadable_removed:
            body = b""
        if body is not None and body != row.body:
            await connection.execute(update(kept.table).where(kept.key == row.key).values({kept.body.name: body}))
    return end
