"""Takes orders and payments, in any order and any number of times, and begins the buying once both agree."""

from dataclasses import replace
from datetime import datetime

from chassis.clock import Clock
from chassis.failpoints import failpoint

from fulfillment import facts
from fulfillment.domain.fold import fold
from fulfillment.domain.model import Fulfillment, Order, OrderId, Payment, Reason, State
from fulfillment.domain.planner import plan
from fulfillment.domain.policy import Paid, PaymentVerdict, judge_payments
from fulfillment.errors import OrderConflict, PaymentReused
from fulfillment.ports.orders import OrderTransaction

WITH_THE_ORDER = "with its order"


class Intake:
    """Writes orders and payments within the caller's transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def take_order(self, transaction: OrderTransaction, order: Order, digest: bytes) -> Fulfillment:
        """Store an order, or find it. Raises OrderConflict when it is known with other content."""
        now = self._clock.now()
        await failpoint("fulfillment.intake.before_order")
        if not await transaction.add_order(order, digest, now=now):
            if await transaction.digest(order.order_id) != digest:
                raise OrderConflict(
                    "order: is known with other content; an order is never changed",
                    metadata={"order_id": order.order_id},
                )
            return await _loaded(transaction, order.order_id)
        details = {"items": str(len(order.items))}
        await facts.record(transaction, "order.accepted", order.order_id, now=now, details=details)
        found = await _loaded(transaction, order.order_id)
        payments = await transaction.payments(order.order_id)
        for payment in payments:
            # The shop still repeats it: a payment is accepted when its order is there.
            await facts.tell_accepted(transaction, payment, telling=WITH_THE_ORDER, now=now)
        return await self._begin_if_paid(transaction, found, now) if payments else found

    async def take_payment(
        self, transaction: OrderTransaction, payment: Payment, *, telling: str
    ) -> Fulfillment | None:
        """Store a payment, or find it, and tell the shop once its order is there too. Raises PaymentReused.

        Returns None while the payment's order is not known; the payment waits for it.
        """
        now = self._clock.now()
        await failpoint("fulfillment.intake.before_payment")
        known = await transaction.add_payment(payment)
        if known is None:
            await _record_payment(transaction, payment, now)
        elif (known.order_id, known.amount) != (payment.order_id, payment.amount):
            raise PaymentReused(
                "payment: is known for another order or amount",
                metadata={"provider": payment.provider, "payment_id": payment.payment_id},
            )
        found = await transaction.load(payment.order_id, lock=True)
        if found is None:
            return None
        await facts.tell_accepted(transaction, payment, telling=telling, now=now)
        return found if known else await self._begin_if_paid(transaction, found, now)

    async def _begin_if_paid(self, transaction: OrderTransaction, before: Fulfillment, now: datetime) -> Fulfillment:
        paid, found = await _paid(transaction, before), before
        if paid.verdict is PaymentVerdict.PAID:
            order_id = before.order.order_id
            await transaction.add_purchases(order_id, plan(order_id, before.order.items), now=now)
            found = await _loaded(transaction, order_id)
        after = await _summarize(transaction, found, paid, now)
        if paid.verdict is PaymentVerdict.MISMATCH and before.reason is not Reason.PAYMENT_MISMATCH:
            await _record_mismatch(transaction, after, now)
        return after


async def summarize(transaction: OrderTransaction, order_id: OrderId, *, now: datetime) -> Fulfillment:
    """Fold an order anew after a change, write what it comes to, and tell the shop what is news to it."""
    found = await _loaded(transaction, order_id)
    return await _summarize(transaction, found, await _paid(transaction, found), now)


async def _summarize(transaction: OrderTransaction, before: Fulfillment, paid: Paid, now: datetime) -> Fulfillment:
    order_id = before.order.order_id
    state, reason = fold((line.state, line.reason) for line in before.lines)
    if paid.verdict is PaymentVerdict.MISMATCH:
        state, reason = State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH
    pay_time = before.pay_time or (now if paid.reaches_total else None)
    await transaction.save_summary(order_id, state, reason, now=now, paid=paid.amount, pay_time=pay_time)
    after = replace(
        before,
        state=state,
        reason=reason,
        paid=paid.amount,
        pay_time=pay_time,
        update_time=now,
        version=before.version + 1,
    )
    await facts.tell_state(transaction, after, now=now)
    return after


async def _paid(transaction: OrderTransaction, found: Fulfillment) -> Paid:
    payments = await transaction.payments(found.order.order_id)
    return judge_payments(found.order.total, [payment.amount for payment in payments])


async def _loaded(transaction: OrderTransaction, order_id: OrderId) -> Fulfillment:
    found = await transaction.load(order_id, lock=True)
    if found is None:
        raise LookupError("an order that was just written is not there")
    return found


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
