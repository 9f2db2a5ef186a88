"""Gives up what is not wanted any more: because it was canceled, or because the money went back.

What is asked here is only written down. Making sure that nothing is bought, revoking, returning and shredding are done
by whoever claims the purchase next (`taking_back.py`), as the table says.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from fulfillment import facts
from fulfillment.domain.machine import Signal
from fulfillment.domain.model import Amount, Fulfillment, ItemId, Purchase, Reason, RefundRequest, State
from fulfillment.domain.policy import signal_on_cancel, signal_on_refund
from fulfillment.errors import NothingToCancel
from fulfillment.moving import REQUESTS, Mover, summarize
from fulfillment.ports.orders import OrderTransaction


class GivingUp:
    """Moves purchases of which nothing more is wanted, within the caller's transaction."""

    def __init__(self, mover: Mover) -> None:
        self._mover = mover

    async def cancel(
        self,
        transaction: OrderTransaction,
        found: Fulfillment,
        item_ids: Collection[ItemId],
        *,
        by_staff: bool,
        now: datetime,
    ) -> Fulfillment:
        """Give up what an order, locked, still waits for. Raises NothingToCancel."""
        if not found.purchases:
            return await self._cancel_unbought(transaction, found, item_ids, now)
        moves = [
            (purchase, signal)
            for line in found.lines
            if not item_ids or line.item.item_id in item_ids
            for purchase in line.purchases
            if (signal := signal_on_cancel(purchase, line.keys_of(purchase.external_id), by_staff=by_staff)) is not None
        ]
        if not moves:
            raise NothingToCancel("the order waits for nothing that could be called off")
        for purchase, signal in moves:
            await self._give_up(transaction, purchase, signal, Reason.CANCEL_ASKED, now)
        await transaction.cancel_order(found.order.order_id, now=now)
        return await summarize(transaction, found.order.order_id, now=now)

    async def _cancel_unbought(
        self, transaction: OrderTransaction, found: Fulfillment, item_ids: Collection[ItemId], now: datetime
    ) -> Fulfillment:
        if item_ids or found.state in {State.CANCELED, State.REFUNDED}:
            raise NothingToCancel("nothing is bought of the order yet: it can be canceled as a whole, once")
        order_id = found.order.order_id
        await transaction.cancel_order(order_id, now=now)
        for item in found.order.items:
            identity = f"{order_id}/{item.item_id}"
            await facts.tell_canceled(
                transaction, order_id, item, item.quantity, Reason.CANCEL_ASKED, identity=identity, now=now
            )
        await ask_back(transaction, found, now=now)
        return await summarize(transaction, order_id, now=now)

    async def pay_back(
        self,
        transaction: OrderTransaction,
        found: Fulfillment,
        *,
        lines: Collection[str],
        answered: Sequence[RefundRequest],
        now: datetime,
    ) -> None:
        """Take back the keys of lines whose money went back, and note which requests of ours were answered."""
        paid_back = {request.external_id for request in answered}
        for line in found.lines:
            for purchase in line.purchases:
                if line.item.item_id in lines:
                    signal = signal_on_refund(purchase, line.keys_of(purchase.external_id))
                elif purchase.external_id in paid_back:
                    signal = Signal.MONEY_RETURNED
                else:
                    continue
                await self._give_up(transaction, purchase, signal, Reason.REFUND_TAKEN, now)

    async def _give_up(
        self, transaction: OrderTransaction, purchase: Purchase, signal: Signal | None, why: Reason, now: datetime
    ) -> None:
        # Money that went back is never asked for again.
        marked = replace(purchase, give_up=why if purchase.give_up is not Reason.REFUND_TAKEN else purchase.give_up)
        moved = marked if signal is None else await self._mover.move(transaction, marked, signal, now=now)
        if moved is marked and purchase.give_up is not marked.give_up:
            # It goes its way already; at its end it is known why.
            await transaction.save_purchase(marked, now=now, run_at=purchase.next_time)


async def ask_back(transaction: OrderTransaction, found: Fulfillment, *, now: datetime) -> None:
    """Ask the shop to pay back all that was paid for an order that was canceled before anything was bought."""
    order_id, items = found.order.order_id, found.order.items
    money = await transaction.money(order_id)
    due = Counter[str]()
    for payment in money.payments:
        due[payment.amount.currency_code] += payment.amount.minor_units
    for refund in money.refunds:
        due[refund.amount.currency_code] -= refund.amount.minor_units
    for earlier in await transaction.refund_requests(order_id):
        if not earlier.is_answered:
            due[earlier.amount.currency_code] -= earlier.amount.minor_units
    for currency, minor in sorted(due.items()):
        if minor <= 0:
            continue
        # What was paid so far names the request: another payment is another request, the same one again is not.
        paid = sum(each.amount.minor_units for each in money.payments if each.amount.currency_code == currency)
        request = RefundRequest(
            request_id=str(uuid.uuid5(REQUESTS, f"{order_id}/{currency}/{paid}")),
            order_id=order_id,
            item_id=None,
            external_id=None,
            quantity=sum(item.quantity for item in items),
            amount=Amount(currency, minor),
            reason=Reason.CANCEL_ASKED,
        )
        if await transaction.add_refund_request(request, now=now):
            await facts.tell_refund_requested(transaction, request, [], now=now)
