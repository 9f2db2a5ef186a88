"""Moves purchases by the table, within the caller's transaction, and writes what a move brings with it."""

import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fulfillment import facts
from fulfillment.domain.fold import fold_order
from fulfillment.domain.machine import Command, Effect, Signal, decide
from fulfillment.domain.model import (
    Amount,
    Fulfillment,
    Key,
    OrderId,
    Purchase,
    Reason,
    RefundRequest,
    State,
)
from fulfillment.domain.money_back import share
from fulfillment.domain.payments import Paid, judge
from fulfillment.domain.planner import external_id, replacement_id
from fulfillment.domain.policy import (
    Policy,
    is_too_old,
    missing,
    next_look,
    signal_on_giving_up,
    wait_before_attempt,
)
from fulfillment.ports.orders import OrderTransaction

REQUESTS = uuid.UUID("0f4b1c3e-5f63-4c1f-9d58-6c2a5a9a7d10")
_WAITING = frozenset(
    {
        State.PENDING,
        State.PURCHASING,
        State.AWAITING_KEYS,
        State.WITHDRAWING,
        State.REVOKING,
        State.RETURNING,
        State.SHREDDING,
    }
)
_ENDED_WITHOUT = frozenset({State.CANCELED, State.PARTLY_CANCELED})


class Mover:
    """Writes moves. Whoever uses it holds the order's lock, and summarizes the order afterwards."""

    def __init__(self, policy: Policy, *, chance: Callable[[], float] = random.random) -> None:
        self.policy = policy
        self._chance = chance

    async def move(
        self,
        transaction: OrderTransaction,
        purchase: Purchase,
        signal: Signal,
        *,
        now: datetime,
        at_least: timedelta | None = None,
        at_once: bool = False,
        delay: timedelta = timedelta(0),
    ) -> Purchase:
        """Move a purchase and return it as it is then. One that stays is looked at again, after ever longer waits.

        What goes elsewhere is looked at there after `delay`. What stays although it is too old is for a human.
        """
        transition = decide(purchase.state, signal)
        if transition is None:
            return purchase
        moved = moved_to(purchase, transition.state, transition.reason_after(purchase.reason), now)
        run_at = None
        if moved.state in _WAITING:
            stays = moved.state is purchase.state and not at_once
            if stays and is_too_old(moved, now):
                # It was asked once more, and this is the answer.
                return await self.move(transaction, moved, Signal.TOO_OLD, now=now)
            look = replace(moved, tries=purchase.tries)
            patience, jitter = self.policy.stock_patience, self._chance()
            later = now + delay
            run_at = next_look(look, now, patience=patience, at_least=at_least, jitter=jitter) if stays else later
        if transition.effect is Effect.MONEY_BACK:
            moved = await _give_money_back(transaction, moved, now=now)
        await transaction.save_purchase(moved, now=now, run_at=run_at)
        if transition.effect is Effect.NEXT_ATTEMPT:
            await self._add_next_attempt(transaction, moved, now, delay)
        if moved.state is State.CANCELED and moved.give_up is Reason.REFUND_TAKEN:
            return await self.move(transaction, moved, Signal.MONEY_RETURNED, now=now)
        return moved

    async def go_on(
        self, transaction: OrderTransaction, purchase: Purchase, signal: Signal, *, now: datetime, until: datetime
    ) -> tuple[Purchase, tuple[Command, ...]]:
        """Move a purchase that its worker keeps, and return what is to be done next."""
        transition = decide(purchase.state, signal)
        if transition is None:
            return purchase, ()
        moved = moved_to(purchase, transition.state, transition.reason_after(purchase.reason), now)
        await transaction.renew(moved, until=until)
        return moved, transition.commands

    async def wake(
        self,
        transaction: OrderTransaction,
        purchase: Purchase,
        keys: Sequence[Key],
        *,
        now: datetime,
        delay: timedelta,
    ) -> None:
        """Let a purchase go on whose row was set aside. It begins a new wait, as with every retry of a person."""
        anew = replace(purchase, state_time=now, park_time=now if purchase.is_parked else None, overdue_time=None)
        if (
            purchase.give_up
            and await self.move(transaction, anew, signal_on_giving_up(anew, keys), now=now, delay=delay) is not anew
        ):
            return
        await transaction.save_purchase(anew, now=now, run_at=now + delay)

    async def _add_next_attempt(
        self, transaction: OrderTransaction, purchase: Purchase, now: datetime, delay: timedelta
    ) -> None:
        attempt = purchase.attempt + 1
        order_id, item_id, key_id = purchase.order_id, purchase.item_id, purchase.replaced_key_id
        if key_id is not None:
            reference = replacement_id(order_id, item_id, key_id, attempt)
        else:
            reference = external_id(order_id, item_id, purchase.chunk, attempt)
        successor = Purchase(
            external_id=reference,
            order_id=order_id,
            item_id=item_id,
            quantity=purchase.quantity,
            state=State.PENDING,
            state_time=now,
            chunk=purchase.chunk,
            attempt=attempt,
            replaced_key_id=key_id,
            lane=purchase.lane,
        )
        run_at = now + delay + wait_before_attempt(attempt, jitter=self._chance())
        await transaction.add_purchases([successor], run_at=run_at)


def moved_to(purchase: Purchase, state: State, reason: Reason, now: datetime) -> Purchase:
    """Return a purchase as it is once it has gone where a transition leads."""
    stays = state is purchase.state
    if state in _ENDED_WITHOUT and reason is Reason.NONE:
        # What came of it once is where it goes back to, when a key of it that did not open was seen to.
        reason = purchase.give_up or (Reason.KEYS_MISSING if purchase.canceled_quantity else Reason.NONE)
    moved = replace(purchase, state=state, reason=reason, tries=purchase.tries + 1 if stays else 0)
    if not stays:
        return replace(moved, state_time=now, park_time=now if moved.is_parked else None, overdue_time=None)
    if moved.is_parked and not purchase.is_parked:
        return replace(moved, park_time=now, overdue_time=None)
    if purchase.is_parked and not moved.is_parked:
        # The time in line is no part of the wait that goes on: to and fro, the two are counted apart.
        waited = max((purchase.park_time or now) - purchase.state_time, timedelta(0))
        return replace(moved, state_time=now - waited, park_time=None, overdue_time=None)
    return moved


async def _give_money_back(transaction: OrderTransaction, purchase: Purchase, *, now: datetime) -> Purchase:
    """Tell what of a purchase will not come, and ask the shop to pay it back unless it has."""
    found = await loaded(transaction, purchase.order_id)
    index, line = next((index, line) for index, line in enumerate(found.lines) if line.item.item_id == purchase.item_id)
    quantity = missing(purchase, line.keys_of(purchase.external_id))
    reason = purchase.give_up or purchase.reason
    # What is taken back of a purchase that was canceled in part is told beside that part, and each once.
    identity = f"{purchase.external_id}/{quantity}" if purchase.canceled_quantity else purchase.external_id
    news = quantity - purchase.canceled_quantity
    if news > 0:
        await facts.tell_canceled(transaction, purchase.order_id, line.item, news, reason, identity=identity, now=now)
    if quantity and purchase.give_up is not Reason.REFUND_TAKEN:
        amount = await _share(transaction, found, index, quantity)
        request = RefundRequest(
            request_id=str(uuid.uuid5(REQUESTS, purchase.external_id)),
            order_id=purchase.order_id,
            item_id=purchase.item_id,
            external_id=purchase.external_id,
            quantity=quantity,
            amount=amount,
            reason=reason,
            # A share of less than a cent is asked for with a later one, which has to know of it.
            is_answered=not amount.minor_units,
        )
        if await transaction.add_refund_request(request, now=now) and amount.minor_units:
            await facts.tell_refund_requested(transaction, request, [(line.item, quantity, amount)], now=now)
    return replace(purchase, canceled_quantity=quantity)


async def _share(transaction: OrderTransaction, found: Fulfillment, index: int, quantity: int) -> Amount:
    items = [line.item for line in found.lines]
    is_priced = all(item.unit_price is not None for item in items)
    weights = [((item.unit_price or 0) if is_priced else item.max_unit_price, item.quantity) for item in items]
    numbers = {item.item_id: number for number, item in enumerate(items)}
    earlier = [
        (numbers[request.item_id], request.quantity)
        for request in await transaction.refund_requests(found.order.order_id)
        if request.item_id is not None
    ]
    total = found.order.total
    due = share(total.minor_units, weights, earlier, index, quantity)
    return Amount(total.currency_code, min(due, await _left(transaction, found)))


async def _left(transaction: OrderTransaction, found: Fulfillment) -> int:
    """Return what is left of an order's payments that nobody has given back or was asked to."""
    order_id, currency = found.order.order_id, found.order.total.currency_code
    money = await transaction.money(order_id)
    requests = await transaction.refund_requests(order_id)
    given = [each.amount for each in money.refunds]
    given += [each.amount for each in requests if not each.is_answered]
    return max(_sum((each.amount for each in money.payments), currency) - _sum(given, currency), 0)


def _sum(amounts: Iterable[Amount], currency: str) -> int:
    return sum(amount.minor_units for amount in amounts if amount.currency_code == currency)


async def loaded(transaction: OrderTransaction, order_id: OrderId) -> Fulfillment:
    """Return an order that is there, locked."""
    found = await transaction.load(order_id, lock=True)
    if found is None:
        raise LookupError("an order that must be there is not")
    return found


async def summarize(transaction: OrderTransaction, order_id: OrderId, *, now: datetime) -> Fulfillment:
    """Fold an order anew after a change, write what it comes to, and tell the shop what is news to it."""
    found = await loaded(transaction, order_id)
    return await write_summary(transaction, found, judge(found.order.total, await transaction.money(order_id)), now=now)


async def write_summary(
    transaction: OrderTransaction, before: Fulfillment, paid: Paid, *, now: datetime
) -> Fulfillment:
    """Write what an order comes to with these payments, and tell the shop what is news to it."""
    state, reason = fold_order(before, paid.verdict)
    pay_time = before.pay_time or (now if paid.reaches_total else None)
    await transaction.save_summary(before.order.order_id, state, reason, now=now, paid=paid, pay_time=pay_time)
    after = replace(
        before,
        state=state,
        reason=reason,
        paid=paid.amount,
        refunded=paid.refunded,
        pay_time=pay_time,
        update_time=now,
        version=before.version + 1,
    )
    await facts.tell_state(transaction, after, now=now)
    return after
