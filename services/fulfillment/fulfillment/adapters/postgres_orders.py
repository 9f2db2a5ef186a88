"""Orders, with what they come to."""

from collections.abc import Sequence
from datetime import datetime

from chassis.database import notify
from sqlalchemy import ColumnElement, and_, exists, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from fulfillment.adapters.connection import CHANGED, OnConnection
from fulfillment.adapters.reading import read_fulfillment
from fulfillment.adapters.tables import ITEM, ORDER, PAYMENT, PURCHASE
from fulfillment.domain.model import Amount, Fulfillment, Order, OrderId, Reason, State
from fulfillment.domain.payments import Paid
from fulfillment.domain.policy import MOST_AGE, Trouble


class PostgresOrderRows(OnConnection):
    """The rows of orders and their lines."""

    async def load(self, order_id: OrderId, *, lock: bool = False) -> Fulfillment | None:
        """Return a fulfillment."""
        return await read_fulfillment(self._connection, order_id, lock=lock)

    async def digest(self, order_id: OrderId) -> bytes | None:
        """Return the digest of the order as it was submitted."""
        return (
            await self._connection.execute(select(ORDER.c.digest).where(ORDER.c.order_id == order_id))
        ).scalar_one_or_none()

    async def add_order(self, order: Order, digest: bytes, *, now: datetime) -> bool:
        """Add an order; a payment of it, or a refund of one, that arrives at the same moment waits."""
        await self._hold_order(order.order_id)
        await self._hold_payments_of(order.order_id)
        statement = insert(ORDER).values(
            order_id=order.order_id,
            customer_id=order.customer.customer_id,
            email=order.customer.email,
            locale=order.customer.locale,
            country_code=order.customer.country_code,
            total_currency=order.total.currency_code,
            total_minor=order.total.minor_units,
            digest=digest,
            state=State.AWAITING_PAYMENT.value,
            reason="",
            version=1,
            create_time=now,
            update_time=now,
        )
        added = await self._connection.execute(
            statement.on_conflict_do_nothing(index_elements=["order_id"]).returning(ORDER.c.order_id)
        )
        if added.first() is None:
            return False
        await self._add_items(order)
        await self._connection.execute(
            update(PAYMENT)
            .where(PAYMENT.c.order_id == order.order_id, PAYMENT.c.is_matched.is_(False))
            .values(is_matched=True)
        )
        return True

    async def _add_items(self, order: Order) -> None:
        rows = [
            {
                "order_id": order.order_id,
                "item_id": item.item_id,
                "position": position,
                "product_id": item.product_id,
                "offer_id": item.offer_id,
                "quantity": item.quantity,
                "max_unit_price": item.max_unit_price,
                "unit_price": item.unit_price,
                "key_type": item.key_type,
                "product_name": "",
            }
            for position, item in enumerate(order.items)
        ]
        await self._connection.execute(insert(ITEM), rows)

    async def cancel_order(self, order_id: OrderId, *, now: datetime) -> None:
        """Note when an order was first asked to be canceled."""
        await self._connection.execute(
            update(ORDER).where(ORDER.c.order_id == order_id, ORDER.c.cancel_time.is_(None)).values(cancel_time=now)
        )

    async def troubled(
        self, trouble: Trouble, *, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[tuple[datetime, OrderId]]:
        """Return orders with a purchase in such trouble, from the index of states, which is read backwards."""
        statement = (
            select(ORDER.c.create_time, ORDER.c.order_id)
            .where(ORDER.c.state == State.NEEDS_ATTENTION.value, _has(trouble))
            .order_by(ORDER.c.create_time, ORDER.c.order_id)
            .limit(size)
        )
        if after is not None:
            statement = statement.where(tuple_(ORDER.c.create_time, ORDER.c.order_id) > after)
        return [(row.create_time, OrderId(row.order_id)) for row in await self._connection.execute(statement)]

    async def save_summary(
        self,
        order_id: OrderId,
        state: State,
        reason: Reason,
        *,
        now: datetime,
        paid: Paid,
        pay_time: datetime | None,
    ) -> None:
        """Write what the order comes to, count its version up, and tell those who watch it."""
        await self._connection.execute(
            update(ORDER)
            .where(ORDER.c.order_id == order_id)
            .values(
                state=state.value,
                reason=reason.value,
                **_amount("paid", paid.amount),
                **_amount("refunded", paid.refunded),
                pay_time=pay_time,
                update_time=now,
                version=ORDER.c.version + 1,
            )
        )
        notify(self._connection, CHANGED, order_id)


def _has(trouble: Trouble) -> ColumnElement[bool]:
    stuck = PURCHASE.c.state == State.NEEDS_ATTENTION.value
    set_aside = and_(PURCHASE.c.state.in_([state.value for state in MOST_AGE]), PURCHASE.c.run_at.is_(None))
    if trouble.reason is None:
        kind = or_(stuck, set_aside)
    elif trouble.reason is Reason.ROW_UNREADABLE:
        kind = set_aside
    else:
        kind = and_(stuck, PURCHASE.c.reason == trouble.reason.value)
    times = [PURCHASE.c.state_time >= trouble.since] if trouble.since else []
    times += [PURCHASE.c.state_time < trouble.until] if trouble.until else []
    return exists().where(PURCHASE.c.order_id == ORDER.c.order_id, kind, *times)


def _amount(name: str, amount: Amount | None) -> dict[str, str | int | None]:
    return {
        f"{name}_currency": amount.currency_code if amount else None,
        f"{name}_minor": amount.minor_units if amount else None,
    }
