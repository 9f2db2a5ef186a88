"""Ends payments that came without their order: a person gives one to the order that it was meant for, or closes it."""

from dataclasses import dataclass, replace
from datetime import datetime

from chassis.clock import Clock

from fulfillment import facts
from fulfillment.domain.model import Fulfillment, OrderId
from fulfillment.domain.payments import Misfit, misfit
from fulfillment.errors import (
    OrderNotFound,
    PaymentClosed,
    PaymentMatched,
    PaymentNotAssignable,
    PaymentNotFound,
)
from fulfillment.intake import Intake
from fulfillment.moving import loaded
from fulfillment.operating import Asked
from fulfillment.ports.orders import OrderTransaction
from fulfillment.ports.payments import Closure, PaymentRecord

ASSIGNED = "assigned"


@dataclass(frozen=True, slots=True)
class PaymentName:
    """The provider's name of a payment."""

    provider: str
    payment_id: str


@dataclass(frozen=True, slots=True)
class Target:
    """The order that a payment is said to be for, and whose that is said to be."""

    order_id: OrderId
    customer_id: str


class Matching:
    """Gives payments their ends, within the caller's transaction."""

    def __init__(self, intake: Intake, clock: Clock) -> None:
        self._intake = intake
        self._clock = clock

    async def assign(
        self, transaction: OrderTransaction, name: PaymentName, target: Target, asked: Asked
    ) -> tuple[PaymentRecord, Fulfillment]:
        """Give a payment to an order; what follows is as if it had come for that one.

        Raises PaymentNotFound, OrderNotFound, PaymentClosed and PaymentNotAssignable.
        """
        now = self._clock.now()
        record = await _locked(transaction, name)
        before, payment = record.payment.order_id, record.payment
        found = {each: await transaction.load(each, lock=True) for each in sorted({before, target.order_id})}
        order = found[target.order_id]
        if order is None:
            raise OrderNotFound("there is no such order")
        if before == target.order_id:
            return record, order
        _check(record, found[before])
        why = misfit(order, await transaction.money(target.order_id), payment, customer_id=target.customer_id)
        if why is not None:
            raise _not_assignable(why)
        await transaction.assign_payment(name.provider, name.payment_id, target.order_id)
        assigned = await _locked(transaction, name)
        await _record(transaction, "payment.assigned", assigned, asked, now, told_order_id=payment.first_told)
        if found[before] is not None:
            await self._intake.count_money(transaction, await loaded(transaction, before), telling=ASSIGNED, now=now)
        # Under the number that the shop knows, so that it stops repeating; and under the one that it is now.
        for order_id in (payment.first_told, target.order_id):
            told = replace(assigned.payment, order_id=order_id)
            await facts.tell_accepted(transaction, told, telling=f"{ASSIGNED}/{order_id}", now=now)
        after = await self._intake.count_money(
            transaction, await loaded(transaction, target.order_id), telling=ASSIGNED, now=now
        )
        return assigned, after

    async def close(
        self, transaction: OrderTransaction, name: PaymentName, closure: Closure, asked: Asked
    ) -> PaymentRecord:
        """End a payment without an order. Raises PaymentNotFound, PaymentClosed and PaymentMatched."""
        now = self._clock.now()
        record = await _locked(transaction, name)
        if record.is_closed:
            raise PaymentClosed("the payment is closed already")
        if await transaction.load(record.payment.order_id) is not None:
            raise PaymentMatched("the payment has an order: what is too much of it is refunded at its provider")
        await transaction.close_payment(name.provider, name.payment_id, closure, asked.reason, now=now)
        await _record(transaction, "payment.closed", record, asked, now, closure=closure.value)
        return await _locked(transaction, name)


def _check(record: PaymentRecord, own: Fulfillment | None) -> None:
    if record.is_closed:
        raise PaymentClosed("the payment is closed: it counts for no order")
    if own is not None and (own.purchases or own.cancel_time is not None):
        raise _not_assignable(Misfit.USED)


async def _locked(transaction: OrderTransaction, name: PaymentName) -> PaymentRecord:
    record = await transaction.lock_payment(name.provider, name.payment_id)
    if record is None:
        raise PaymentNotFound("there is no such payment")
    return record


def _not_assignable(why: Misfit) -> PaymentNotAssignable:
    return PaymentNotAssignable("the payment cannot be that order's", metadata={"why": why.value})


async def _record(
    transaction: OrderTransaction, action: str, record: PaymentRecord, asked: Asked, now: datetime, **more: str
) -> None:
    payment = record.payment
    details = {
        "provider": payment.provider,
        "payment_id": payment.payment_id,
        "currency_code": payment.amount.currency_code,
        "minor_units": str(payment.amount.minor_units),
        **more,
        "reason": asked.reason,
    }
    identity = [payment.provider, payment.payment_id, now.isoformat()]
    await facts.record(
        transaction, action, payment.order_id, now=now, identity=identity, actor=asked.actor, details=details
    )
