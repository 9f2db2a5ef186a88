"""Payments as staff looks at them, over fulfillment's database."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from chassis.database import Database
from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, not_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.reading import payment_of, refund_of
from fulfillment.adapters.tables import ORDER, PAYMENT, REFUND
from fulfillment.domain.model import OrderId, Refund
from fulfillment.ports.payments import Closure, PaymentRecord, Unmatched

# The row says so too, for an index; a version that knows nothing of that leaves it as it is.
_has_order = exists().where(ORDER.c.order_id == PAYMENT.c.order_id)
_has_payment = exists().where(PAYMENT.c.provider == REFUND.c.provider, PAYMENT.c.payment_id == REFUND.c.payment_id)
_payment_waits = and_(not_(PAYMENT.c.is_matched), not_(_has_order), PAYMENT.c.close_time.is_(None))
_refund_waits = and_(REFUND.c.apply_time.is_(None), not_(_has_payment))


class PostgresPayments:
    """The rows of payments, to be looked at."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, provider: str, payment_id: str) -> PaymentRecord | None:
        """Return one payment."""
        async with self._database.transaction() as connection:
            return await read_payment(connection, provider, payment_id)

    async def page(
        self, *, order_id: OrderId | None, unmatched: bool, size: int, after: tuple[datetime, str, str] | None
    ) -> Sequence[PaymentRecord]:
        """Return payments, the one that was heard of last first."""
        place = PAYMENT.c.create_time, PAYMENT.c.provider, PAYMENT.c.payment_id
        statement = _payments().order_by(*(column.desc() for column in place)).limit(size)
        if order_id is not None:
            statement = statement.where(PAYMENT.c.order_id == order_id)
        if unmatched:
            statement = statement.where(_payment_waits)
        if after is not None:
            statement = statement.where(tuple_(*place) < after)
        async with self._database.transaction() as connection:
            return await _records(connection, (await connection.execute(statement)).all())

    async def unmatched(self) -> Unmatched:
        """Count what waits for its other half."""
        async with self._database.transaction() as connection:
            payments, first_payment = await _count(connection, PAYMENT.c.create_time, _payment_waits)
            refunds, first_refund = await _count(connection, REFUND.c.create_time, _refund_waits)
        return Unmatched(payments, refunds, min((time for time in (first_payment, first_refund) if time), default=None))


async def read_payment(connection: AsyncConnection, provider: str, payment_id: str) -> PaymentRecord | None:
    """Return one payment, as it is kept."""
    statement = _payments(PAYMENT.c.provider == provider, PAYMENT.c.payment_id == payment_id)
    found = await _records(connection, (await connection.execute(statement)).all())
    return found[0] if found else None


def _payments(*which: ColumnElement[bool]) -> Select[Any]:
    return select(PAYMENT, _has_order.label("has_order")).where(*which)


async def _records(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[PaymentRecord]:
    refunds = await _refunds(connection, [(row.provider, row.payment_id) for row in rows])
    return [
        PaymentRecord(
            payment_of(row),
            create_time=row.create_time,
            is_matched=row.has_order,
            refunds=refunds[row.provider, row.payment_id],
            close_time=row.close_time,
            closure=_closure(row.closure),
            close_note=row.close_note or "",
        )
        for row in rows
    ]


def _closure(word: str | None) -> Closure | None:
    # A word of another version is one of those that need nothing more, too.
    return None if word is None else Closure(word) if word in frozenset(Closure) else Closure.CLOSED


async def _refunds(
    connection: AsyncConnection, payments: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], Sequence[Refund]]:
    found: dict[tuple[str, str], list[Refund]] = {payment: [] for payment in payments}
    if payments:
        statement = select(REFUND).where(tuple_(REFUND.c.provider, REFUND.c.payment_id).in_(payments))
        for row in await connection.execute(statement.order_by(REFUND.c.refund_id)):
            found[row.provider, row.payment_id].append(refund_of(row))
    return found


async def _count(
    connection: AsyncConnection, time: ColumnElement[datetime], waits: ColumnElement[bool]
) -> tuple[int, datetime | None]:
    row = (await connection.execute(select(func.count(), func.min(time)).where(waits))).one()
    return row[0], row[1]
