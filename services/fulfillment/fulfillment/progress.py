"""Moves purchases: what was claimed is acted on, what comes back is a signal, and the table says where it leads.

1 commit the claim (state, lease)  dies here: the lease ends and another worker asks the same question again
2 act: buy, or have keys sealed    dies here: as above; both are idempotent under the purchase's reference
3 commit the answer                dies here: as above
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from chassis.clock import Clock
from chassis.failpoints import failpoint

from fulfillment import facts
from fulfillment.domain.machine import Command, Signal, decide
from fulfillment.domain.model import Key, KeyId, Purchase, State
from fulfillment.domain.policy import signal_on_claim, wait_after
from fulfillment.intake import summarize
from fulfillment.ports.orders import Orders, OrderTransaction
from fulfillment.ports.supplier import (
    ArrivedKey,
    Buying,
    Claimed,
    CollectAnswer,
    Collected,
    InDoubt,
    NoAnswer,
    Paused,
    PlaceAnswer,
    Placed,
    Refused,
    Supplier,
    Unknown,
    Unreadable,
)

# Buying may take the supplier as long as its own timeout, and a settling search on top.
ACT_SECONDS = 75.0
# Short, so that a dead worker's purchases are soon another's; what is under way has its lease extended.
LEASE = timedelta(seconds=15)
EXTEND_SECONDS = 4.0
_WAITING = {State.PURCHASING, State.AWAITING_KEYS}

Act = Callable[[Buying], Awaitable[None]]


class Progress:
    """Works on purchases. Any number of replicas may."""

    def __init__(
        self, orders: Orders, supplier: Supplier, *, clock: Clock, chance: Callable[[], float] = random.random
    ) -> None:
        self._orders = orders
        self._supplier = supplier
        self._clock = clock
        self._chance = chance
        self._acts: Mapping[Command, Act] = {
            Command.PLACE_ORDER: self._place,
            Command.SETTLE_ORDER: self._place,
            Command.COLLECT_KEYS: self._collect,
        }

    async def claim(self, limit: int) -> Sequence[Claimed]:
        """Claim what is due: each is moved on by the claim, and this worker's until its lease ends."""
        now = self._clock.now()
        async with self._orders.transaction() as transaction:
            due = await transaction.lock_due(limit, now=now)
            if not due:
                return ()
            claimed = [await self._take(transaction, buying, now) for buying in due]
            moved = zip(due, claimed, strict=True)
            changed = [
                was.purchase.order_id for was, each in moved if was.purchase.state is not each.buying.purchase.state
            ]
            for order_id in dict.fromkeys(changed):
                await summarize(transaction, order_id, now=now)
            await failpoint("fulfillment.claim.before_commit")
        await failpoint("fulfillment.claim.after_commit")
        return claimed

    async def _take(self, transaction: OrderTransaction, buying: Buying, now: datetime) -> Claimed:
        before = buying.purchase
        transition = decide(before.state, signal_on_claim(before, now))
        if transition is None:
            raise LookupError("a purchase was due in a state that is claimed by nobody")
        moved = before
        if transition.state is not before.state:
            reason = transition.reason_after(before.reason)
            moved = replace(before, state=transition.state, reason=reason, state_time=now, tries=0)
        if transition.commands:
            await transaction.lease(moved, until=now + LEASE)
        else:
            await transaction.save_purchase(moved, now=now, run_at=None)
        return Claimed(replace(buying, purchase=moved), transition.commands)

    async def extend(self, claimed: Sequence[Claimed]) -> None:
        """Keep what is under way from others for another while."""
        now = self._clock.now()
        async with self._orders.transaction() as transaction:
            under_way = [each.buying.purchase.external_id for each in claimed]
            await transaction.extend_leases(under_way, now=now, until=now + LEASE)

    async def act(self, claimed: Claimed) -> None:
        """Do what the claim's transition asks for."""
        for command in claimed.commands:
            await self._acts[command](claimed.buying)

    async def key_opened(self, transaction: OrderTransaction, key_id: KeyId) -> None:
        """Note that an owner opened a key; when it was the last one of its purchase, that is delivered."""
        order_id = await transaction.order_of_key(key_id)
        if order_id is None:
            return
        now = self._clock.now()
        # Locked before it is read: two keys opened at one moment must not each see the other unopened.
        await transaction.load(order_id, lock=True)
        if not await transaction.open_key(key_id, now=now):
            return
        after = await transaction.load(order_id)
        for line in after.lines if after else ():
            for purchase in line.purchases:
                keys = [key for key in line.keys if key.external_id == purchase.external_id]
                if purchase.state is State.READY and all(key.open_time for key in keys):
                    await self._move(transaction, purchase, Signal.ALL_KEYS_OPENED, now=now)
        await summarize(transaction, order_id, now=now)

    async def _place(self, buying: Buying) -> None:
        await failpoint("fulfillment.place.before_call")
        answer = await self._supplier.place(buying)
        await failpoint("fulfillment.place.after_call")
        now = self._clock.now()
        async with self._orders.transaction() as transaction:
            purchase = await _locked(transaction, buying.purchase)
            moved = await self._placed(transaction, purchase, answer, now)
            if (moved.state, moved.reason) != (purchase.state, purchase.reason):
                await summarize(transaction, purchase.order_id, now=now)
            await failpoint("fulfillment.place.before_commit")
        await failpoint("fulfillment.place.after_commit")

    async def _placed(
        self, transaction: OrderTransaction, purchase: Purchase, answer: PlaceAnswer, now: datetime
    ) -> Purchase:
        match answer:
            case Placed(supplier_order_id, product_name, charged_cents):
                placed = replace(purchase, supplier_order_id=supplier_order_id, place_time=purchase.place_time or now)
                await transaction.name_product(placed.order_id, placed.item_id, product_name)
                await facts.tell_purchased(transaction, placed, charged_cents, now=now)
                moved = await self._move(transaction, placed, Signal.ORDER_PLACED, now=now)
                if moved.state is State.NEEDS_ATTENTION and not purchase.supplier_order_id:
                    # Given up as too old, and bought after all: whoever looks at it has to see that.
                    await transaction.save_purchase(placed, now=now, run_at=None)
                return moved
            case Refused(kind):
                return await self._move(transaction, purchase, Signal.ORDER_REFUSED, now=now, refusal=kind)
            case InDoubt(ask_after):
                return await self._move(transaction, purchase, Signal.ORDER_IN_DOUBT, now=now, at_least=ask_after)
            case Paused(ask_after):
                return await self._move(transaction, purchase, Signal.BUYING_PAUSED, now=now, at_least=ask_after)
            case NoAnswer():
                return await self._move(transaction, purchase, Signal.NO_ANSWER, now=now)

    async def _collect(self, buying: Buying) -> None:
        await failpoint("fulfillment.collect.before_call")
        answer = await self._supplier.collect(buying)
        await failpoint("fulfillment.collect.after_call")
        now = self._clock.now()
        async with self._orders.transaction() as transaction:
            purchase = await _locked(transaction, buying.purchase)
            more, fresh = False, False
            if isinstance(answer, Collected):
                more, fresh = answer.more_ready, await _store_keys(transaction, purchase, answer, now)
            signal = _collecting_signal(answer, purchase.quantity)
            moved = await self._move(transaction, purchase, signal, now=now, at_once=more)
            if fresh or moved.state is not purchase.state:
                await summarize(transaction, purchase.order_id, now=now)
            await failpoint("fulfillment.collect.before_commit")
        await failpoint("fulfillment.collect.after_commit")

    async def _move(
        self,
        transaction: OrderTransaction,
        purchase: Purchase,
        signal: Signal,
        *,
        now: datetime,
        at_least: timedelta | None = None,
        at_once: bool = False,
        refusal: str = "",
    ) -> Purchase:
        """Move a purchase and return it as it is then. One that stays waits, ever longer."""
        transition = decide(purchase.state, signal)
        if transition is None:
            return purchase
        stays = transition.state is purchase.state
        moved = replace(
            purchase,
            state=transition.state,
            reason=transition.reason_after(purchase.reason),
            tries=purchase.tries + 1 if stays else 0,
        )
        if not stays or moved.is_parked is not purchase.is_parked:
            moved = replace(moved, state_time=now)
        if moved.is_parked and moved.park_time is None:
            moved = replace(moved, park_time=now)
        run_at = None
        if moved.state in _WAITING:
            wait = wait_after(purchase.tries, at_least=at_least, jitter=self._chance())
            run_at = now + wait if stays and not at_once else now
        await transaction.save_purchase(moved, now=now, run_at=run_at, refusal=refusal)
        return moved


async def _locked(transaction: OrderTransaction, purchase: Purchase) -> Purchase:
    """Return the purchase as it is now: another worker may have moved it since the claim."""
    found = await transaction.load(purchase.order_id, lock=True)
    for line in found.lines if found else ():
        for current in line.purchases:
            if current.external_id == purchase.external_id:
                return current
    raise LookupError("a purchase that was claimed is not there")


async def _store_keys(transaction: OrderTransaction, purchase: Purchase, answer: Collected, now: datetime) -> bool:
    """Store the names of keys, tell of those that can be opened, and return whether any is new."""
    await transaction.name_product(purchase.order_id, purchase.item_id, answer.product_name)
    fresh = await transaction.add_keys(purchase.order_id, [_key(arrived, purchase, now) for arrived in answer.keys])
    openable = [key for key in fresh if not key.held]
    for key in openable:
        await facts.tell_key_ready(transaction, purchase.order_id, key, now=now)
    if openable:
        await transaction.want_mail(purchase.order_id, now=now)
    return bool(fresh)


def _collecting_signal(answer: CollectAnswer, quantity: int) -> Signal:
    match answer:
        case Collected(keys) if len(keys) >= quantity:
            return Signal.KEY_HELD if any(key.held for key in keys) else Signal.ALL_KEYS_SEALED
        case Collected(_, _, more_ready, ended) if ended and not more_ready:
            return Signal.NO_MORE_KEYS
        case Collected():
            return Signal.SOME_KEYS_SEALED
        case NoAnswer():
            return Signal.NO_ANSWER
        case Unreadable():
            return Signal.KEY_UNREADABLE
        case Unknown():
            return Signal.PURCHASE_UNKNOWN


def _key(arrived: ArrivedKey, purchase: Purchase, now: datetime) -> Key:
    return Key(
        key_id=arrived.key_id,
        item_id=purchase.item_id,
        external_id=purchase.external_id,
        content_type=arrived.content_type,
        held=arrived.held,
        ready_time=now,
    )
