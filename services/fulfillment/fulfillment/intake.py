"""Takes orders, payments and refunds, in any order and any number of times, and begins the buying once they agree."""

from collections.abc import Sequence
from datetime import datetime

from chassis.clock import Clock

from fulfillment import facts
from fulfillment.domain.erasure import FORGOTTEN
from fulfillment.domain.model import (
    Fulfillment,
    Order,
    Payment,
    Purchase,
    Reason,
    Refund,
    State,
)
from fulfillment.domain.payments import Paid, PaymentVerdict, judge
from fulfillment.domain.planner import MOST_COUNTED, external_id, lane
from fulfillment.errors import OrderConflict, PaymentReused, RefundReused
from fulfillment.giving_up import GivingUp, ask_back
from fulfillment.moving import loaded, write_summary
from fulfillment.ports.orders import OrderTransaction

WITH_THE_ORDER = "with its order"
WITH_THE_PAYMENT = "with its payment"


class Intake:
    """Writes orders, payments and refunds within the caller's transaction."""

    def __init__(self, giving_up: GivingUp, clock: Clock) -> None:
        self._giving_up = giving_up
        self._clock = clock

    async def take_order(self, transaction: OrderTransaction, order: Order, digest: bytes) -> Fulfillment:
        """Store an order, or find it. Raises OrderConflict when it is known with other content."""
        now = self._clock.now()
        if not await transaction.add_order(order, digest, now=now):
            # What an order said was forgotten with its customer: what is there is the answer; nothing is bought anew.
            if await transaction.digest(order.order_id) not in {digest, FORGOTTEN}:
                raise OrderConflict(
                    "order: is known with other content; an order is never changed",
                    metadata={"order_id": order.order_id},
                )
            return await loaded(transaction, order.order_id)
        details = {"items": str(len(order.items))}
        await facts.record(transaction, "order.accepted", order.order_id, now=now, details=details)
        found = await loaded(transaction, order.order_id)
        payments = (await transaction.money(order.order_id)).payments
        for payment in payments:
            # The shop still repeats it: a payment is accepted when its order is there.
            await facts.tell_accepted(transaction, payment, telling=WITH_THE_ORDER, now=now)
        return await self.count_money(transaction, found, telling=WITH_THE_ORDER, now=now) if payments else found

    async def take_payment(
        self, transaction: OrderTransaction, payment: Payment, *, telling: str
    ) -> Fulfillment | None:
        """Store a payment, or find it, and tell the shop once its order is there too. Raises PaymentReused.

        Returns None while the payment's order is not known; the payment waits for it.
        """
        now = self._clock.now()
        known = await transaction.add_payment(payment, now=now)
        if known is None:
            await _record_payment(transaction, payment, now)
        elif payment.amount != known.amount or payment.order_id not in {known.order_id, known.first_told}:
            raise PaymentReused(
                "payment: is known for another order or amount",
                metadata={"provider": payment.provider, "payment_id": payment.payment_id},
            )
        # Whatever order the shop names with it, it is the one's that a person has given it to.
        found = await transaction.load(known.order_id if known else payment.order_id, lock=True)
        if found is None or (known is not None and known.is_closed):
            return None
        await facts.tell_accepted(transaction, payment, telling=telling, now=now)
        return found if known else await self.count_money(transaction, found, telling=WITH_THE_PAYMENT, now=now)

    async def take_refund(self, transaction: OrderTransaction, refund: Refund, *, telling: str) -> Fulfillment | None:
        """Store a refund, or find it, and take back what it pays for. Raises RefundReused.

        Returns None while its payment or its order is not known; the refund waits for them.
        """
        now = self._clock.now()
        known = await transaction.add_refund(refund, now=now)
        if known is not None and _content(known) != _content(refund):
            raise RefundReused(
                "refund: is known with other content",
                metadata={"provider": refund.provider, "refund_id": refund.refund_id},
            )
        order_id = await transaction.order_of_payment(refund.provider, refund.payment_id)
        found = None if order_id is None else await transaction.load(order_id, lock=True)
        if found is None:
            return None
        if known is None:
            return await self.count_money(transaction, found, telling=telling, now=now)
        opened = _opened(found, refund)
        await facts.tell_refunded(transaction, found.order.order_id, refund, opened=opened, telling=telling, now=now)
        return found

    async def count_money(
        self, transaction: OrderTransaction, before: Fulfillment, *, telling: str, now: datetime
    ) -> Fulfillment:
        """Let what was paid and given back have its effect: buying begins, or is undone, or a human is asked."""
        order_id, found = before.order.order_id, before
        money = await transaction.money(order_id)
        paid = judge(found.order.total, money)
        is_new = not found.purchases
        if is_new and found.cancel_time is not None:
            await ask_back(transaction, found, now=now)
        elif is_new and paid.verdict is PaymentVerdict.PAID:
            await self._begin(transaction, found.order, now)
            found = await loaded(transaction, order_id)
        for refund in await transaction.take_pending_refunds(order_id):
            await self._apply(transaction, found, refund, paid, now)
            opened = _opened(found, refund)
            await facts.tell_refunded(transaction, order_id, refund, opened=opened, telling=telling, now=now)
            found = await loaded(transaction, order_id)
        after = await write_summary(transaction, found, paid, now=now)
        if after.reason is Reason.PAYMENT_MISMATCH and before.reason is not Reason.PAYMENT_MISMATCH:
            await _record_mismatch(transaction, after, now)
        return after

    async def _begin(self, transaction: OrderTransaction, order: Order, now: datetime) -> None:
        waiting = await transaction.waiting(order.customer.customer_id, most=MOST_COUNTED)
        roots = [
            Purchase(
                external_id=external_id(order.order_id, item.item_id, 0, 1),
                order_id=order.order_id,
                item_id=item.item_id,
                quantity=item.quantity,
                state=State.PENDING,
                state_time=now,
                lane=lane(waiting + number),
            )
            for number, item in enumerate(order.items)
        ]
        await transaction.add_purchases(roots, run_at=now)

    async def _apply(
        self, transaction: OrderTransaction, found: Fulfillment, refund: Refund, paid: Paid, now: datetime
    ) -> None:
        order_id = found.order.order_id
        lines = _lines(found, refund, paid)
        # What is paid back of a line without our number answers what was asked for it all the same, and what is paid
        # back of everything answers everything: else later requests would be too small.
        open_ones = [each for each in await transaction.refund_requests(order_id) if not each.is_answered]
        implied = [
            each.request_id
            for each in open_ones
            if each.item_id in lines or (each.item_id is None and paid.verdict is PaymentVerdict.GIVEN_BACK)
        ]
        answered = await transaction.answer_refund_requests(order_id, [*refund.request_ids, *implied])
        await self._giving_up.pay_back(transaction, found, lines=lines, answered=answered, now=now)
        details = {
            "refund_id": refund.refund_id,
            "payment_id": refund.payment_id,
            "provider": refund.provider,
            "currency_code": refund.amount.currency_code,
            "minor_units": str(refund.amount.minor_units),
            "chargeback": str(refund.is_chargeback).lower(),
            "opened": str(_opened(found, refund)),
        }
        identity = [refund.provider, refund.refund_id]
        await facts.record(transaction, "payment.refunded", order_id, now=now, identity=identity, details=details)


def _content(refund: Refund) -> tuple[object, ...]:
    return refund.payment_id, refund.amount, refund.is_chargeback, sorted(refund.item_ids), sorted(refund.request_ids)


def _lines(found: Fulfillment, refund: Refund, paid: Paid) -> Sequence[str]:
    """Return the lines whose keys a refund takes back."""
    if refund.item_ids:
        return refund.item_ids
    if refund.request_ids or paid.verdict is not PaymentVerdict.GIVEN_BACK:
        return ()
    return [line.item.item_id for line in found.lines]


def _opened(found: Fulfillment, refund: Refund) -> int:
    lines = {*refund.item_ids} or {line.item.item_id for line in found.lines}
    return sum(key.open_time is not None for line in found.lines if line.item.item_id in lines for key in line.keys)


async def _record_payment(transaction: OrderTransaction, payment: Payment, now: datetime) -> None:
    details = {
        "payment_id": payment.payment_id,
        "provider": payment.provider,
        "currency_code": payment.amount.currency_code,
        "minor_units": str(payment.amount.minor_units),
    }
    identity = [payment.provider, payment.payment_id]
    await facts.record(transaction, "payment.confirmed", payment.order_id, now=now, identity=identity, details=details)


async def _record_mismatch(transaction: OrderTransaction, found: Fulfillment, now: datetime) -> None:
    total, paid = found.order.total, found.paid
    details = {
        "expected": f"{total.currency_code} {total.minor_units}",
        "received": f"{paid.currency_code} {paid.minor_units}" if paid else "",
    }
    order_id = found.order.order_id
    await facts.record(
        transaction, "payment.mismatch", order_id, now=now, identity=[str(found.version)], details=details
    )
