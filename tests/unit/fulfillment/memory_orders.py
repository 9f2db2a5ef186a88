"""Orders in memory: the port as PostgreSQL serves it, without PostgreSQL. Both pass the same contract suite.

One transaction runs at a time, as if every one locked everything; one that raises leaves nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.events import derived_event_id
from fulfillment.domain.fold import fold
from fulfillment.domain.model import (
    ExternalId,
    Fulfillment,
    ItemId,
    Key,
    KeyId,
    Line,
    Money,
    Order,
    OrderId,
    Payment,
    Purchase,
    Reason,
    Refund,
    RefundRequest,
    State,
)
from fulfillment.domain.payments import Paid
from fulfillment.domain.policy import Trouble, is_stranded
from fulfillment.ports.mail import MailDue
from fulfillment.ports.payments import Closure, PaymentRecord
from fulfillment.ports.supplier import Buying
from google.protobuf.message import Message

from tests.unit.fulfillment.memory_rows import (
    KeyRow,
    MailRow,
    OrderRow,
    PaymentRow,
    PurchaseRow,
    RefundRow,
    Rows,
    Told,
    payment_place,
)

R = TypeVar("R", bound=Message)


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
    async def transaction(self, _step: str = "") -> AsyncIterator["MemoryTransaction"]:
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

    async def extend_mails(self, claims: Mapping[OrderId, int], *, now: datetime, until: datetime) -> None:
        async with self.transaction() as transaction:
            for order_id, claim in claims.items():
                row = transaction.rows.mails[order_id]
                if row.claim == claim and row.lease_until is not None and row.lease_until > now:
                    transaction.rows.mails[order_id] = replace(row, run_at=until, lease_until=until)

    async def mail_waits(self, order_id: OrderId, claim: int, *, run_at: datetime | None, failure: str) -> None:
        async with self.transaction() as transaction:
            row = transaction.rows.mails[order_id]
            if row.claim == claim:
                transaction.rows.mails[order_id] = replace(row, run_at=run_at, lease_until=None, failure=failure)

    def told(self, kind: type[R]) -> list[R]:
        return [told.message for told in self.rows.told.values() if isinstance(told.message, kind)]

    def purchases(self) -> list[Purchase]:
        return [row.as_read for row in self.rows.purchases.values()]


class MemoryTransaction:
    """Works on a copy, which becomes the truth when it is committed."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.notified: list[str] = []

    @asynccontextmanager
    async def isolated(self) -> AsyncIterator[None]:
        before, notified = self.rows.copy(), list(self.notified)
        try:
            yield
        except BaseException:
            self.rows, self.notified = before, notified
            raise

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
            refunded=row.refunded,
            cancel_time=row.cancel_time,
        )

    def _line(self, order: Order, position: int) -> Line:
        item = order.items[position]
        place = (order.order_id, item.item_id)
        rows = [row for row in self.rows.purchases.values() if _place(row.purchase) == place]
        purchases = sorted((row.as_read for row in rows), key=lambda each: (each.chunk, each.attempt))
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

    async def cancel_order(self, order_id: OrderId, *, now: datetime) -> None:
        row = self.rows.orders[order_id]
        self.rows.orders[order_id] = replace(row, cancel_time=row.cancel_time or now)

    async def add_payment(self, payment: Payment, *, now: datetime) -> Payment | None:
        added = PaymentRow(payment, now)
        known = self.rows.payments.setdefault((payment.provider, payment.payment_id), added)
        return None if known is added else known.payment

    async def add_refund(self, refund: Refund, *, now: datetime) -> Refund | None:
        added = RefundRow(refund, now)
        known = self.rows.refunds.setdefault((refund.provider, refund.refund_id), added)
        return None if known is added else known.refund

    async def order_of_payment(self, provider: str, payment_id: str) -> OrderId | None:
        known = self.rows.payments.get((provider, payment_id))
        return None if known is None or known.payment.is_closed else known.payment.order_id

    async def lock_payment(self, provider: str, payment_id: str) -> PaymentRecord | None:
        row = self.rows.payments.get((provider, payment_id))
        return None if row is None else self.rows.record(row)

    async def assign_payment(self, provider: str, payment_id: str, order_id: OrderId) -> None:
        row = self.rows.payments[provider, payment_id]
        payment = replace(row.payment, order_id=order_id, told_order_id=row.payment.first_told)
        self.rows.payments[provider, payment_id] = replace(row, payment=payment)

    async def close_payment(
        self, provider: str, payment_id: str, closure: Closure, note: str, *, now: datetime
    ) -> None:
        row = self.rows.payments[provider, payment_id]
        self.rows.payments[provider, payment_id] = replace(
            row, payment=replace(row.payment, is_closed=True), close_time=now, closure=closure, close_note=note
        )

    async def money(self, order_id: OrderId) -> Money:
        payments = [row.payment for _, row in sorted(self.rows.payments.items()) if _counts_for(row, order_id)]
        return Money(payments, [row.refund for row in self._refunds(order_id)])

    async def take_pending_refunds(self, order_id: OrderId) -> Sequence[Refund]:
        pending = [row for row in self._refunds(order_id) if not row.is_applied]
        for row in pending:
            self.rows.refunds[row.refund.provider, row.refund.refund_id] = replace(row, is_applied=True)
        return [row.refund for row in pending]

    def _refunds(self, order_id: OrderId) -> list[RefundRow]:
        payments = {place for place, row in self.rows.payments.items() if _counts_for(row, order_id)}
        rows = [row for row in self.rows.refunds.values() if payment_place(row.refund) in payments]
        return sorted(rows, key=lambda row: (*payment_place(row.refund), row.refund.refund_id))

    async def add_refund_request(self, request: RefundRequest, *, now: datetime) -> bool:  # noqa: ARG002 # the port's
        return self.rows.requests.setdefault(request.request_id, request) is request

    async def refund_requests(self, order_id: OrderId) -> Sequence[RefundRequest]:
        return [request for request in self.rows.requests.values() if request.order_id == order_id]

    async def answer_refund_requests(self, order_id: OrderId, request_ids: Sequence[str]) -> Sequence[RefundRequest]:
        answered = [
            replace(request, is_answered=True)
            for request in await self.refund_requests(order_id)
            if request.request_id in request_ids and not request.is_answered
        ]
        self.rows.requests.update({request.request_id: request for request in answered})
        return answered

    async def add_purchases(self, purchases: Sequence[Purchase], *, run_at: datetime) -> None:
        for purchase in purchases:
            row = PurchaseRow(replace(purchase, claim=0), run_at)
            self.rows.purchases.setdefault(purchase.external_id, row)
        if purchases:
            self.notified.append("due")

    async def waiting(self, customer_id: str, *, most: int) -> int:
        waiting = [
            row
            for row in self.rows.purchases.values()
            if row.purchase.state in {State.PENDING, State.PURCHASING}
            and self.rows.orders[row.purchase.order_id].order.customer.customer_id == customer_id
        ]
        return min(len(waiting), most)

    async def lock_due(self, shares: Mapping[int, int], *, now: datetime) -> Sequence[Buying]:
        due = [row for row in self.rows.purchases.values() if row.run_at is not None and row.run_at <= now]
        due.sort(key=lambda row: row.run_at or now)
        return [
            self._buying(row.as_read)
            for lane, share in sorted(shares.items())
            for row in [row for row in due if row.purchase.lane == lane][:share]
        ]

    def _buying(self, purchase: Purchase) -> Buying:
        order = self.rows.orders[purchase.order_id].order
        item = next(item for item in order.items if item.item_id == purchase.item_id)
        return Buying(purchase, item, order.customer.customer_id, order.customer.country_code)

    async def lease(self, purchase: Purchase, *, until: datetime) -> Purchase:
        claim = self.rows.purchases[purchase.external_id].purchase.claim + 1
        leased = replace(purchase, claim=claim)
        self._change(purchase.external_id, purchase=leased, run_at=until, lease_until=until, hastened=False)
        return replace(leased, next_time=until)

    async def renew(self, purchase: Purchase, *, until: datetime) -> None:
        if self.rows.purchases[purchase.external_id].purchase.claim != purchase.claim:
            raise LookupError("a purchase that somebody else has claimed cannot be gone on with")
        self._change(purchase.external_id, purchase=purchase, run_at=until, lease_until=until)

    async def extend_leases(self, claims: Mapping[ExternalId, int], *, now: datetime, until: datetime) -> None:
        for external_id, claim in claims.items():
            row = self.rows.purchases[external_id]
            if row.is_leased(now) and row.purchase.claim == claim:
                self._change(external_id, run_at=until, lease_until=until)

    async def save_purchase(self, purchase: Purchase, *, now: datetime, run_at: datetime | None) -> None:
        row = self.rows.purchases[purchase.external_id]
        facts = replace(purchase, claim=row.purchase.claim)
        if run_at is not None and row.is_leased(now) and purchase.claim != row.purchase.claim:
            self._change(purchase.external_id, purchase=facts)
        else:
            due = now if row.hastened and run_at is not None else run_at
            self._change(purchase.external_id, purchase=facts, run_at=due, lease_until=None, hastened=False)
        if run_at is not None:
            self.notified.append("due")

    async def put_off(self, external_id: ExternalId, *, run_at: datetime) -> None:
        self._change(external_id, run_at=run_at, lease_until=None)

    async def hasten(self, external_id: ExternalId, *, now: datetime) -> None:
        row = self.rows.purchases.get(external_id)
        if row is None or row.run_at is None:
            return
        leased = row.is_leased(now)
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

    async def revoke_keys(self, key_ids: Sequence[KeyId], *, now: datetime) -> None:
        for key_id in key_ids:
            row = self.rows.keys[key_id]
            self.rows.keys[key_id] = replace(row, key=replace(row.key, revoke_time=row.key.revoke_time or now))

    async def replace_key(self, key_id: KeyId, *, now: datetime) -> bool:
        row = self.rows.keys[key_id]
        if row.key.replace_time is not None:
            return False
        self.rows.keys[key_id] = replace(row, key=replace(row.key, replace_time=now))
        return True

    async def name_product(self, order_id: OrderId, item_id: ItemId, name: str) -> None:
        if name:
            self.rows.names[order_id, item_id] = name

    async def troubled(
        self, trouble: Trouble, *, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[tuple[datetime, OrderId]]:
        rows = [row for row in self.rows.orders.values() if row.state is State.NEEDS_ATTENTION]
        found = [
            (row.create_time, row.order.order_id)
            for row in rows
            if any(
                trouble.includes(purchase) and (purchase.state is State.NEEDS_ATTENTION or is_stranded(purchase))
                for purchase in self.render(row).purchases
            )
        ]
        return sorted(place for place in found if after is None or place > after)[:size]

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
        row = self.rows.orders[order_id]
        self.rows.orders[order_id] = replace(
            row,
            state=state,
            reason=reason,
            paid=paid.amount,
            refunded=paid.refunded,
            pay_time=pay_time,
            update_time=now,
            version=row.version + 1,
        )
        self.notified.append(order_id)

    async def want_mail(self, order_id: OrderId, *, now: datetime) -> None:
        self.rows.mails.setdefault(order_id, MailRow(run_at=now))
        self.notified.append("due")

    async def want_mail_again(
        self, order_id: OrderId, *, now: datetime, most: int, within: timedelta
    ) -> datetime | None:
        row = self.rows.mails.get(order_id)
        if row is None:
            raise LookupError("no mail was ever wanted for the order")
        recent = [time for time in row.again_times if time > now - within]
        if len(recent) >= most:
            return recent[-most] + within
        again_times, claim = (*recent, now), row.claim + 1
        self.rows.mails[order_id] = MailRow(now, send_time=row.send_time, again_times=again_times, claim=claim)
        self.notified.append("due")
        return None

    async def mail_done(self, order_id: OrderId, claim: int, *, now: datetime) -> None:
        mail, order = self.rows.mails[order_id], self.rows.orders[order_id]
        if mail.claim == claim:
            mail = replace(mail, run_at=None, lease_until=None)
        self.rows.mails[order_id] = replace(mail, send_time=now, failure="")
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
        tries, claim = row.tries + 1, row.claim + 1
        self.rows.mails[order_id] = replace(row, run_at=until, lease_until=until, tries=tries, claim=claim)
        names = [self.rows.names.get((order_id, item.item_id)) or item.product_id for item in order.items]
        return MailDue(order_id, order.customer.email, order.customer.locale, names, tries, claim)

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


def _counts_for(row: PaymentRow, order_id: OrderId) -> bool:
    return row.payment.order_id == order_id and not row.payment.is_closed


def _place(purchase: Purchase) -> tuple[OrderId, ItemId]:
    return purchase.order_id, purchase.item_id
