"""Orders in memory: the port as PostgreSQL serves it, without PostgreSQL. Both pass the same contract suite.

One transaction runs at a time, as if every one locked everything; one that raises leaves nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.events import derived_event_id
from fulfillment.domain.fold import fold
from fulfillment.domain.model import (
    Amount,
    ExternalId,
    Fulfillment,
    ItemId,
    Key,
    KeyId,
    Line,
    Order,
    OrderId,
    Payment,
    Purchase,
    Reason,
    State,
)
from fulfillment.domain.planner import Planned
from fulfillment.ports.mail import MailDue
from fulfillment.ports.supplier import Buying
from google.protobuf.message import Message

R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class OrderRow:
    order: Order
    digest: bytes
    create_time: datetime
    update_time: datetime
    state: State = State.AWAITING_PAYMENT
    reason: Reason = Reason.NONE
    version: int = 1
    paid: Amount | None = None
    pay_time: datetime | None = None
    mail_time: datetime | None = None


@dataclass(frozen=True)
class PurchaseRow:
    purchase: Purchase
    chunk: int
    run_at: datetime | None
    lease_until: datetime | None = None
    hastened: bool = False
    refusal: str = ""


@dataclass(frozen=True)
class KeyRow:
    key: Key
    order_id: OrderId


@dataclass(frozen=True)
class MailRow:
    run_at: datetime | None
    tries: int = 0
    send_time: datetime | None = None
    failure: str = ""


@dataclass(frozen=True)
class Told:
    subject: str
    message: Message
    about: str


@dataclass
class Rows:
    """Everything that is committed, or would be."""

    orders: dict[OrderId, OrderRow] = field(default_factory=dict)
    names: dict[tuple[OrderId, ItemId], str] = field(default_factory=dict)
    payments: dict[tuple[str, str], Payment] = field(default_factory=dict)
    purchases: dict[ExternalId, PurchaseRow] = field(default_factory=dict)
    keys: dict[KeyId, KeyRow] = field(default_factory=dict)
    mails: dict[OrderId, MailRow] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    answers: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    inbox: dict[str, None] = field(default_factory=dict)

    def copy(self) -> "Rows":
        return Rows(**{name: dict(table) for name, table in vars(self).items()})


async def no_trouble(_step: str) -> None:
    """Nothing happens around a commit."""


class MemoryOrders:
    """Keeps what was committed. `away` makes it unreachable; `step` is called around each commit and may fail there."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.away = False
        self.step: Callable[[str], Awaitable[None]] = no_trouble
        self.notified: list[str] = []
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["MemoryTransaction"]:
        if self.away:
            raise ServiceUnavailable("the database does not answer")
        async with self._turn:
            transaction = MemoryTransaction(self.rows.copy())
            yield transaction
            await self.step("before commit")
            self.rows = transaction.rows
            self.notified += transaction.notified
        await self.step("after commit")

    async def page(
        self, *, customer_id: str, state: State | None, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[Fulfillment]:
        rows = sorted(self.rows.orders.values(), key=lambda row: (row.create_time, row.order.order_id), reverse=True)
        transaction = MemoryTransaction(self.rows.copy())
        return [
            transaction.render(row)
            for row in rows
            if (not customer_id or row.order.customer.customer_id == customer_id)
            and (state is None or row.state is state)
            and (after is None or (row.create_time, row.order.order_id) < after)
        ][:size]

    async def due_mails(self, limit: int, *, lease: timedelta, now: datetime) -> Sequence[MailDue]:
        async with self.transaction() as transaction:
            return transaction.claim_mails(limit, lease=lease, now=now)

    async def mail_waits(self, order_id: OrderId, *, run_at: datetime | None, failure: str) -> None:
        async with self.transaction() as transaction:
            row = transaction.rows.mails[order_id]
            transaction.rows.mails[order_id] = replace(row, run_at=run_at, failure=failure)

    def told(self, kind: type[R]) -> list[R]:
        return [told.message for told in self.rows.told.values() if isinstance(told.message, kind)]

    def purchases(self) -> list[Purchase]:
        return [row.purchase for row in self.rows.purchases.values()]


class MemoryTransaction:
    """Works on a copy, which becomes the truth when it is committed."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.notified: list[str] = []

    async def load(self, order_id: OrderId, *, lock: bool = False) -> Fulfillment | None:  # noqa: ARG002 # all is locked
        row = self.rows.orders.get(order_id)
        return None if row is None else self.render(row)

    def render(self, row: OrderRow) -> Fulfillment:
        return Fulfillment(
            order=row.order,
            state=row.state,
            reason=row.reason,
            paid=row.paid,
            lines=[self._line(row.order, position) for position in range(len(row.order.items))],
            version=row.version,
            create_time=row.create_time,
            update_time=row.update_time,
            pay_time=row.pay_time,
            mail_time=row.mail_time,
        )

    def _line(self, order: Order, position: int) -> Line:
        item = order.items[position]
        place = (order.order_id, item.item_id)
        rows = [row for row in self.rows.purchases.values() if _place(row.purchase) == place]
        purchases = [row.purchase for row in sorted(rows, key=lambda row: row.chunk)]
        keys = [row.key for row in self.rows.keys.values() if (row.order_id, row.key.item_id) == place]
        state, reason = fold((purchase.state, purchase.reason) for purchase in purchases)
        return Line(item, self.rows.names.get(place, ""), purchases, keys, state, reason)

    async def order_of_key(self, key_id: KeyId) -> OrderId | None:
        row = self.rows.keys.get(key_id)
        return None if row is None else row.order_id

    async def digest(self, order_id: OrderId) -> bytes | None:
        row = self.rows.orders.get(order_id)
        return None if row is None else row.digest

    async def add_order(self, order: Order, digest: bytes, *, now: datetime) -> bool:
        if order.order_id in self.rows.orders:
            return False
        self.rows.orders[order.order_id] = OrderRow(order, digest, now, now)
        return True

    async def add_payment(self, payment: Payment) -> Payment | None:
        known = self.rows.payments.setdefault((payment.provider, payment.payment_id), payment)
        return None if known is payment else known

    async def payments(self, order_id: OrderId) -> Sequence[Payment]:
        return [payment for _, payment in sorted(self.rows.payments.items()) if payment.order_id == order_id]

    async def add_purchases(self, order_id: OrderId, planned: Sequence[Planned], *, now: datetime) -> None:
        for each in planned:
            purchase = Purchase(each.external_id, order_id, each.item_id, each.quantity, State.PENDING, now)
            self.rows.purchases.setdefault(each.external_id, PurchaseRow(purchase, each.chunk, run_at=now))
        self.notified.append("due")

    async def lock_due(self, limit: int, *, now: datetime) -> Sequence[Buying]:
        due = [row for row in self.rows.purchases.values() if row.run_at is not None and row.run_at <= now]
        due.sort(key=lambda row: row.run_at or now)
        return [self._buying(row.purchase) for row in due[:limit]]

    def _buying(self, purchase: Purchase) -> Buying:
        order = self.rows.orders[purchase.order_id].order
        item = next(item for item in order.items if item.item_id == purchase.item_id)
        return Buying(purchase, item, order.customer.customer_id, order.customer.country_code)

    async def lease(self, purchase: Purchase, *, until: datetime) -> None:
        self._change(purchase.external_id, purchase=purchase, run_at=until, lease_until=until, hastened=False)

    async def extend_leases(self, external_ids: Sequence[ExternalId], *, now: datetime, until: datetime) -> None:
        for external_id in external_ids:
            lease = self.rows.purchases[external_id].lease_until
            if lease is not None and lease > now:
                self._change(external_id, run_at=until, lease_until=until)

    async def save_purchase(
        self, purchase: Purchase, *, now: datetime, run_at: datetime | None, refusal: str = ""
    ) -> None:
        row = self.rows.purchases[purchase.external_id]
        self._change(
            purchase.external_id,
            purchase=purchase,
            run_at=now if row.hastened and run_at is not None else run_at,
            lease_until=None,
            hastened=False,
            refusal=refusal or row.refusal,
        )

    async def hasten(self, external_id: ExternalId, *, now: datetime) -> None:
        row = self.rows.purchases.get(external_id)
        if row is None or row.run_at is None:
            return
        leased = row.lease_until is not None and row.lease_until > now
        self._change(external_id, run_at=row.run_at if leased else now, hastened=leased)
        self.notified.append("due")

    def _change(self, external_id: ExternalId, **changes: object) -> None:
        row = self.rows.purchases[external_id]
        self.rows.purchases[external_id] = replace(row, **changes)  # type: ignore[arg-type] # fields by name

    async def add_keys(self, order_id: OrderId, keys: Sequence[Key]) -> Sequence[Key]:
        fresh = [key for key in keys if key.key_id not in self.rows.keys]
        self.rows.keys.update({key.key_id: KeyRow(key, order_id) for key in fresh})
        return fresh

    async def open_key(self, key_id: KeyId, *, now: datetime) -> bool:
        row = self.rows.keys[key_id]
        if row.key.open_time is not None:
            return False
        self.rows.keys[key_id] = replace(row, key=replace(row.key, open_time=now))
        return True

    async def name_product(self, order_id: OrderId, item_id: ItemId, name: str) -> None:
        if name:
            self.rows.names[order_id, item_id] = name

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
        row = self.rows.orders[order_id]
        self.rows.orders[order_id] = replace(
            row, state=state, reason=reason, paid=paid, pay_time=pay_time, update_time=now, version=row.version + 1
        )
        self.notified.append(order_id)

    async def want_mail(self, order_id: OrderId, *, now: datetime) -> None:
        self.rows.mails.setdefault(order_id, MailRow(run_at=now))
        self.notified.append("due")

    async def mail_done(self, order_id: OrderId, *, now: datetime) -> None:
        mail, order = self.rows.mails[order_id], self.rows.orders[order_id]
        self.rows.mails[order_id] = replace(mail, run_at=None, send_time=now, failure="")
        self.rows.orders[order_id] = replace(order, mail_time=now, version=order.version + 1)
        self.notified.append(order_id)

    def claim_mails(self, limit: int, *, lease: timedelta, now: datetime) -> list[MailDue]:
        due = [
            (row.run_at, order_id)
            for order_id, row in self.rows.mails.items()
            if row.run_at is not None and row.run_at <= now
        ]
        return [self._claim_mail(order_id, now + lease) for _, order_id in sorted(due)[:limit]]

    def _claim_mail(self, order_id: OrderId, until: datetime) -> MailDue:
        row, order = self.rows.mails[order_id], self.rows.orders[order_id].order
        self.rows.mails[order_id] = replace(row, run_at=until, tries=row.tries + 1)
        names = [self.rows.names.get((order_id, item.item_id)) or item.product_id for item in order.items]
        return MailDue(order_id, order.customer.email, order.customer.locale, names, row.tries + 1)

    async def tell(self, subject: str, message: Message, *, about: str, now: datetime, identity: Sequence[str]) -> None:  # noqa: ARG002 # when it was told first is enough
        self.rows.told.setdefault(derived_event_id("fulfillment", subject, *identity), Told(subject, message, about))

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        kept = self.rows.answers.get(request_id)
        if kept is None:
            return None
        if kept[0] != digest:
            raise RequestIdReused("request_id: was used with another body")
        return response_class.FromString(kept[1])

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        self.rows.answers[request_id] = digest, response.SerializeToString(deterministic=True)


def _place(purchase: Purchase) -> tuple[OrderId, ItemId]:
    return purchase.order_id, purchase.item_id
