"""Fulfillment's own PostgreSQL database: one transaction, everything it may write."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from chassis.database import notify
from chassis.events import Event, derived_event_id
from chassis.outbox import Outbox
from chassis.request_log import earlier_answer, keep_answer
from google.protobuf.message import Message
from sqlalchemy import Row, case, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.reading import item_of, purchase_of, read_fulfillment
from fulfillment.adapters.tables import ITEM, KEY, MAIL, ORDER, PAYMENT, PURCHASE
from fulfillment.domain.model import (
    Amount,
    ExternalId,
    Fulfillment,
    ItemId,
    Key,
    KeyId,
    Order,
    OrderId,
    Payment,
    Purchase,
    Reason,
    State,
)
from fulfillment.domain.planner import Planned
from fulfillment.ports.supplier import Buying

R = TypeVar("R", bound=Message)

SOURCE = "fulfillment"
CHANGED = "fulfillment_changed"
DUE = "fulfillment_due"


class PostgresOrderTransaction:
    """One transaction over orders, on a connection that the caller commits."""

    def __init__(self, connection: AsyncConnection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    async def load(self, order_id: OrderId, *, lock: bool = False) -> Fulfillment | None:
        """Return a fulfillment."""
        return await read_fulfillment(self._connection, order_id, lock=lock)

    async def order_of_key(self, key_id: KeyId) -> OrderId | None:
        """Return the order that a key belongs to."""
        statement = select(KEY.c.order_id).where(KEY.c.key_id == key_id)
        return (await self._connection.execute(statement)).scalar_one_or_none()

    async def digest(self, order_id: OrderId) -> bytes | None:
        """Return the digest of the order as it was submitted."""
        return (
            await self._connection.execute(select(ORDER.c.digest).where(ORDER.c.order_id == order_id))
        ).scalar_one_or_none()

    async def add_order(self, order: Order, digest: bytes, *, now: datetime) -> bool:
        """Add an order. Takes turns by its number with a payment that arrives at the same moment."""
        await self._take_turn(order.order_id)
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
        rows = [
            {
                "order_id": order.order_id,
                "item_id": item.item_id,
                "position": position,
                "product_id": item.product_id,
                "offer_id": item.offer_id,
                "quantity": item.quantity,
                "max_unit_price": item.max_unit_price,
                "key_type": item.key_type,
                "product_name": "",
            }
            for position, item in enumerate(order.items)
        ]
        await self._connection.execute(insert(ITEM), rows)
        return True

    async def add_payment(self, payment: Payment) -> Payment | None:
        """Add a payment, or return the one that is known under its number."""
        await self._take_turn(payment.order_id)
        statement = insert(PAYMENT).values(
            provider=payment.provider,
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            currency=payment.amount.currency_code,
            minor=payment.amount.minor_units,
            confirm_time=payment.confirm_time,
        )
        added = await self._connection.execute(
            statement.on_conflict_do_nothing(index_elements=["provider", "payment_id"]).returning(PAYMENT.c.payment_id)
        )
        if added.first() is not None:
            return None
        known = await self._connection.execute(
            select(PAYMENT).where(PAYMENT.c.provider == payment.provider, PAYMENT.c.payment_id == payment.payment_id)
        )
        return _payment_of(known.one())

    async def payments(self, order_id: OrderId) -> Sequence[Payment]:
        """Return an order's payments."""
        statement = (
            select(PAYMENT).where(PAYMENT.c.order_id == order_id).order_by(PAYMENT.c.provider, PAYMENT.c.payment_id)
        )
        return [_payment_of(row) for row in await self._connection.execute(statement)]

    async def add_purchases(self, order_id: OrderId, planned: Sequence[Planned], *, now: datetime) -> None:
        """Add purchases, due at once."""
        rows = [
            {
                "external_id": purchase.external_id,
                "order_id": order_id,
                "item_id": purchase.item_id,
                "chunk": purchase.chunk,
                "attempt": purchase.attempt,
                "quantity": purchase.quantity,
                "state": State.PENDING.value,
                "reason": "",
                "state_time": now,
                "supplier_order_id": "",
                "refusal": "",
                "tries": 0,
                "run_at": now,
                "hastened": False,
            }
            for purchase in planned
        ]
        await self._connection.execute(insert(PURCHASE).on_conflict_do_nothing(), rows)
        notify(self._connection, DUE)

    async def lock_due(self, limit: int, *, now: datetime) -> Sequence[Buying]:
        """Lock purchases that are due, each with its order; those that somebody else has are passed over."""
        rows = (
            await self._connection.execute(
                select(PURCHASE, ORDER.c.customer_id, ORDER.c.country_code)
                .join(ORDER, ORDER.c.order_id == PURCHASE.c.order_id)
                .where(PURCHASE.c.run_at <= now)
                .order_by(PURCHASE.c.run_at)
                .limit(limit)
                .with_for_update(skip_locked=True, of=[PURCHASE, ORDER])
            )
        ).all()
        if not rows:
            return ()
        wanted = [(row.order_id, row.item_id) for row in rows]
        items = await self._connection.execute(select(ITEM).where(tuple_(ITEM.c.order_id, ITEM.c.item_id).in_(wanted)))
        found = {(item.order_id, item.item_id): item_of(item) for item in items}
        return [
            Buying(purchase_of(row), found[row.order_id, row.item_id], row.customer_id, row.country_code)
            for row in rows
        ]

    async def lease(self, purchase: Purchase, *, until: datetime) -> None:
        """Write a claimed purchase; it is due again when the lease ends without an answer."""
        await self._connection.execute(
            update(PURCHASE)
            .where(PURCHASE.c.external_id == purchase.external_id)
            .values(
                state=purchase.state.value,
                state_time=purchase.state_time,
                run_at=until,
                lease_until=until,
                hastened=False,
            )
        )

    async def extend_leases(self, external_ids: Sequence[ExternalId], *, now: datetime, until: datetime) -> None:
        """Let leases that have not ended last longer; one that has ended may be somebody else's already."""
        # What is locked is being answered: waiting for it could only end in a deadlock.
        held = (
            select(PURCHASE.c.external_id)
            .where(PURCHASE.c.external_id.in_(external_ids), PURCHASE.c.lease_until > now)
            .with_for_update(skip_locked=True)
        )
        await self._connection.execute(
            update(PURCHASE).where(PURCHASE.c.external_id.in_(held)).values(run_at=until, lease_until=until)
        )

    async def save_purchase(
        self, purchase: Purchase, *, now: datetime, run_at: datetime | None, refusal: str = ""
    ) -> None:
        """Write a purchase and end its lease; what was hastened meanwhile is due at once."""
        values: dict[str, object] = {
            "state": purchase.state.value,
            "reason": purchase.reason.value,
            "state_time": purchase.state_time,
            "supplier_order_id": purchase.supplier_order_id,
            "place_time": purchase.place_time,
            "tries": purchase.tries,
            "park_time": purchase.park_time,
            "run_at": None if run_at is None else case((PURCHASE.c.hastened, now), else_=run_at),
            "lease_until": None,
            "hastened": False,
        }
        if refusal:
            values["refusal"] = refusal
        await self._connection.execute(
            update(PURCHASE).where(PURCHASE.c.external_id == purchase.external_id).values(values)
        )
        if run_at is not None:
            notify(self._connection, DUE)

    async def hasten(self, external_id: ExternalId, *, now: datetime) -> None:
        """Let a waiting purchase be looked at now; one that a worker has, as soon as it is put back."""
        leased = PURCHASE.c.lease_until > now
        await self._connection.execute(
            update(PURCHASE)
            .where(PURCHASE.c.external_id == external_id, PURCHASE.c.run_at.is_not(None))
            .values(run_at=case((leased, PURCHASE.c.run_at), else_=now), hastened=case((leased, True), else_=False))
        )
        notify(self._connection, DUE)

    async def add_keys(self, order_id: OrderId, keys: Sequence[Key]) -> Sequence[Key]:
        """Add keys and return those that are new."""
        if not keys:
            return ()
        rows = [
            {
                "key_id": key.key_id,
                "order_id": order_id,
                "item_id": key.item_id,
                "external_id": key.external_id,
                "content_type": key.content_type,
                "held": key.held,
                "ready_time": key.ready_time,
            }
            for key in keys
        ]
        statement = insert(KEY).values(rows).on_conflict_do_nothing(index_elements=["key_id"]).returning(KEY.c.key_id)
        added = set((await self._connection.execute(statement)).scalars())
        return [key for key in keys if key.key_id in added]

    async def open_key(self, key_id: KeyId, *, now: datetime) -> bool:
        """Note the first opening of a key."""
        statement = update(KEY).where(KEY.c.key_id == key_id, KEY.c.open_time.is_(None)).values(open_time=now)
        opened = await self._connection.execute(statement.returning(KEY.c.key_id))
        return opened.first() is not None

    async def name_product(self, order_id: OrderId, item_id: ItemId, name: str) -> None:
        """Keep the supplier's name of a line's product."""
        if name:
            await self._connection.execute(
                update(ITEM)
                .where(ITEM.c.order_id == order_id, ITEM.c.item_id == item_id, ITEM.c.product_name != name)
                .values(product_name=name)
            )

    async def save_summary(
        self,
        order_id: OrderId,
        state: State,
        reason: Reason,
        *,
        now: datetime,
        paid: Amount | None,
        pay_time: datetime | None,
    ) -> None:
        """Write what the order comes to, count its version up, and tell those who watch it."""
        await self._connection.execute(
            update(ORDER)
            .where(ORDER.c.order_id == order_id)
            .values(
                state=state.value,
                reason=reason.value,
                paid_currency=paid.currency_code if paid else None,
                paid_minor=paid.minor_units if paid else None,
                pay_time=pay_time,
                update_time=now,
                version=ORDER.c.version + 1,
            )
        )
        notify(self._connection, CHANGED, order_id)

    async def want_mail(self, order_id: OrderId, *, now: datetime) -> None:
        """Let the order's one mail be sent."""
        statement = insert(MAIL).values(order_id=order_id, run_at=now, tries=0, failure="")
        await self._connection.execute(statement.on_conflict_do_nothing(index_elements=["order_id"]))
        notify(self._connection, DUE)

    async def mail_done(self, order_id: OrderId, *, now: datetime) -> None:
        """Note that the mail server took the mail."""
        await self._connection.execute(
            update(MAIL).where(MAIL.c.order_id == order_id).values(run_at=None, send_time=now, failure="")
        )
        await self._connection.execute(
            update(ORDER).where(ORDER.c.order_id == order_id).values(mail_time=now, version=ORDER.c.version + 1)
        )
        notify(self._connection, CHANGED, order_id)

    async def tell(self, subject: str, message: Message, *, about: str, now: datetime, identity: Sequence[str]) -> None:
        """Put an event into the outbox."""
        event_id = derived_event_id(SOURCE, subject, *identity)
        event = Event.of(message, event_id=event_id, subject=subject, source=SOURCE, about=about, time=now)
        await self._outbox.enqueue(self._connection, event)

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        """Return the answer that this request got before."""
        return await earlier_answer(
            self._connection, request_id=request_id, digest=digest, response_class=response_class
        )

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        """Keep the answer for a repeat of this request."""
        await keep_answer(self._connection, request_id=request_id, digest=digest, response=response)

    async def _take_turn(self, order_id: str) -> None:
        await self._connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:order_id, 2))"), {"order_id": order_id}
        )


def _payment_of(row: Row[Any]) -> Payment:
    amount = Amount(row.currency, row.minor)
    return Payment(row.provider, row.payment_id, OrderId(row.order_id), amount, row.confirm_time)
