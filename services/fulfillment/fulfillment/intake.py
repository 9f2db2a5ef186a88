"""Takes orders and payments, in any order and any number of times, and begins the buying once both agree."""

from datetime import datetime

from chassis.clock import Clock
from chassis.failpoints import failpoint

from fulfillment import facts
from fulfillment.domain.fold import fold
from fulfillment.domain.model import Fulfillment, Order, OrderId, Payment, Reason, State
from fulfillment.domain.planner import plan
from fulfillment.domain.policy import PaymentVerdict, judge_payments
from fulfillment.errors import OrderConflict, PaymentReused
from fulfillment.ports import OrderTransaction


class Intake:
    """Writes orders and payments within the caller's transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def take_order(self, transaction: OrderTransaction, order: Order, digest: bytes) -> Fulfillment:
        """Store an order, or find it. Raises OrderConflict when it is known with other content."""
        now = self._clock.now()
        await failpoint("fulfillment.intake.before_order")
        if await transaction.add_order(order, digest, now=now):
            await facts.record(
                transaction,
                "order.accepted",
                order.order_id,
                now=now,
                identity="",
                details={"items": str(len(order.items))},
            )
        elif await transaction.digest(order.order_id) != digest:
            raise OrderConflict(
                "order: is known with other content; an order is never changed", metadata={"order_id": order.order_id}
            )
        return await self._begin_if_paid(transaction, order.order_id, now)

    async def take_payment(
        self, transaction: OrderTransaction, payment: Payment, *, telling: str
    ) -> Fulfillment | None:
        """Store a payment, or find it, and answer the shop. Raises PaymentReused.

        Returns None while the payment's order is not known; the payment waits for it.
        """
        now = self._clock.now()
        await failpoint("fulfillment.intake.before_payment")
        known = await transaction.add_payment(payment)
        if (known.order_id, known.amount) != (payment.order_id, payment.amount):
            raise PaymentReused(
                "payment: is known for another order or amount",
                metadata={"provider": payment.provider, "payment_id": payment.payment_id},
            )
        details = {
            "payment_id": payment.payment_id,
            "provider": payment.provider,
            "currency_code": payment.amount.currency_code,
            "minor_units": str(payment.amount.minor_units),
        }
        identity = f"{payment.provider}/{payment.payment_id}"
        await facts.record(
            transaction, "payment.confirmed", payment.order_id, now=now, identity=identity, details=details
        )
        await facts.tell_accepted(transaction, payment, telling=telling, now=now)
        if await transaction.load(payment.order_id, lock=True) is None:
            return None
        return await self._begin_if_paid(transaction, payment.order_id, now)

    async def _begin_if_paid(self, transaction: OrderTransaction, order_id: OrderId, now: datetime) -> Fulfillment:
        before = await _loaded(transaction, order_id)
        paid = judge_payments(before.order.total, await transaction.payments(order_id))
        if paid.verdict is PaymentVerdict.PAID:
            await transaction.add_purchases(order_id, plan(order_id, before.order.items), now=now)
        after = await summarize(transaction, order_id, now=now)
        if paid.verdict is PaymentVerdict.MISMATCH and before.reason is not Reason.PAYMENT_MISMATCH:
            received = paid.amount
            await facts.record(
                transaction,
                "payment.mismatch",
                order_id,
                now=now,
                identity=str(before.version),
                details={
                    "expected": f"{before.order.total.currency_code} {before.order.total.minor_units}",
                    "received": f"{received.currency_code} {received.minor_units}" if received else "",
                },
            )
        return after


async def summarize(transaction: OrderTransaction, order_id: OrderId, *, now: datetime) -> Fulfillment:
    """Fold an order anew after a change, write what it comes to, and tell the shop what is news to it."""
    current = await _loaded(transaction, order_id)
    paid = judge_payments(current.order.total, await transaction.payments(order_id))
    state, reason = fold((line.state, line.reason) for line in current.lines)
    if paid.verdict is PaymentVerdict.MISMATCH:
        state, reason = State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH
    settled = paid.verdict is not PaymentVerdict.SHORT
    await transaction.save_summary(
        order_id, state, reason, now=now, paid=paid.amount, pay_time=(current.pay_time or now) if settled else None
    )
    after = await _loaded(transaction, order_id)
    if (current.state, current.reason) != (after.state, after.reason):
        await facts.tell_state(transaction, after, now=now)
    return after


async def _loaded(transaction: OrderTransaction, order_id: OrderId) -> Fulfillment:
    found = await transaction.load(order_id, lock=True)
    if found is None:
        raise LookupError("an order that was just written is not there")
    return found
