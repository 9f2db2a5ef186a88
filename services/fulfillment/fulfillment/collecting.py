"""Has keys collected and sealed, and notes which of them their owner has opened."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from chassis.clock import Clock
from chassis.failpoints import effect

from fulfillment import facts
from fulfillment.domain.machine import Signal
from fulfillment.domain.model import Key, KeyId, Purchase, State
from fulfillment.domain.policy import is_all_opened, missing
from fulfillment.moving import Mover, loaded, summarize
from fulfillment.ports.orders import OrderTransaction
from fulfillment.ports.supplier import (
    ArrivedKey,
    Buying,
    Claimed,
    CollectAnswer,
    Collected,
    NoAnswer,
    Supplier,
    Unknown,
    Unreadable,
)
from fulfillment.working import Bench, Turn

_AWAITED = frozenset({State.AWAITING_KEYS, State.READY, State.DELIVERED, State.NEEDS_ATTENTION})


class KeyCollector:
    """Collects keys of what was claimed."""

    def __init__(self, bench: Bench, supplier: Supplier) -> None:
        self._bench = bench
        self._supplier = supplier

    async def collect(self, buying: Buying) -> Claimed | None:
        """Have what has been delivered sealed, and note what arrived."""
        answer = await effect("fulfillment.collect.call", lambda: self._supplier.collect(buying))
        async with self._bench.turn(buying, "collect") as turn:
            purchase, more = turn.purchase, False
            if isinstance(answer, Collected):
                more = answer.more_ready
                turn.has_news = await _store_keys(turn, answer)
            if not _is_awaited(purchase):
                if turn.has_news:
                    await turn.move(purchase, Signal.KEYS_ARRIVED)
                return None
            await turn.move(purchase, _signal(answer, turn), at_once=more)
            if turn.moved.state is State.READY and not turn.has_news and is_all_opened(turn.keys):
                # Its keys were there before, and opened while a person was asked.
                await turn.move(turn.moved, Signal.ALL_KEYS_OPENED)
        return None


class Openings:
    """Notes what vault tells of keys that their owners asked for, within the caller's transaction."""

    def __init__(self, mover: Mover, clock: Clock) -> None:
        self._mover = mover
        self._clock = clock

    async def key_opened(self, transaction: OrderTransaction, key_id: KeyId) -> None:
        """Note that an owner opened a key; when it was the last one of its purchase, that is delivered."""
        order_id = await transaction.order_of_key(key_id)
        if order_id is None:
            return
        now = self._clock.now()
        # Locked before it is read: two keys opened at one moment must not each see the other unopened.
        await loaded(transaction, order_id)
        if not await transaction.open_key(key_id, now=now):
            return
        found = await loaded(transaction, order_id)
        for line in found.lines:
            for purchase in line.purchases:
                if purchase.state is State.READY and is_all_opened(line.keys_of(purchase.external_id)):
                    await self._mover.move(transaction, purchase, Signal.ALL_KEYS_OPENED, now=now)
        await summarize(transaction, order_id, now=now)

    async def key_corrupted(self, transaction: OrderTransaction, key_id: KeyId) -> None:
        """Let a person look at the purchase of a key that vault could not open for its owner."""
        order_id = await transaction.order_of_key(key_id)
        if order_id is None:
            return
        now = self._clock.now()
        line, key = next(
            (line, key)
            for line in (await loaded(transaction, order_id)).lines
            for key in line.keys
            if key.key_id == key_id
        )
        if key.revoke_time is not None or key.replace_time is not None:
            # Told of a moment before: it is nobody's any more.
            return
        purchase = next(each for each in line.purchases if each.external_id == key.external_id)
        moved = await self._mover.move(transaction, purchase, Signal.KEY_CORRUPTED, now=now)
        if moved is not purchase:
            await summarize(transaction, order_id, now=now)


async def _store_keys(turn: Turn, answer: Collected) -> bool:
    """Store the names of keys, tell of those that can be opened, and return whether any is new."""
    transaction, purchase, now = turn.transaction, turn.purchase, turn.now
    await transaction.name_product(purchase.order_id, purchase.item_id, answer.product_name)
    known = {key.key_id for key in turn.keys}
    arrived = [_key(each, purchase, now) for each in answer.keys if each.key_id not in known]
    fresh = await transaction.add_keys(purchase.order_id, _wanted(arrived, turn))
    await tell_keys(transaction, purchase, fresh, now=now)
    return bool(fresh)


def _wanted(arrived: Sequence[Key], turn: Turn) -> Sequence[Key]:
    """Revoke what nobody is to open: it was given up meanwhile, or a person has delivered a key in its place."""
    room = missing(turn.purchase, turn.keys) if _is_awaited(turn.purchase) else 0
    openable = [key for key in arrived if key.is_openable]
    surplus = {key.key_id for key in openable[room:]}
    is_late = not _is_awaited(turn.purchase)
    return [replace(key, revoke_time=turn.now) if is_late or key.key_id in surplus else key for key in arrived]


def _is_awaited(purchase: Purchase) -> bool:
    return purchase.state in _AWAITED and not purchase.give_up


async def tell_keys(transaction: OrderTransaction, purchase: Purchase, fresh: Sequence[Key], *, now: datetime) -> None:
    """Tell of keys that are new and can be opened, and let the customer be written to."""
    openable = [key for key in fresh if key.is_openable]
    for key in openable:
        await facts.tell_key_ready(transaction, purchase.order_id, key, now=now)
    if openable:
        await transaction.want_mail(purchase.order_id, now=now)


def _signal(answer: CollectAnswer, turn: Turn) -> Signal:
    match answer:
        case Collected():
            return _signal_of_keys(answer, turn)
        case NoAnswer():
            return Signal.NO_ANSWER
        case Unreadable():
            return Signal.KEY_UNREADABLE
        case Unknown():
            return Signal.PURCHASE_UNKNOWN


def _signal_of_keys(answer: Collected, turn: Turn) -> Signal:
    # A person may have delivered a part of it.
    there = {key.key_id for key in answer.keys} | {key.key_id for key in turn.keys if key.is_openable}
    is_all = len(there) >= turn.purchase.quantity
    if not is_all and not (answer.ended and not answer.more_ready):
        return Signal.SOME_KEYS_SEALED
    if any(key.held for key in answer.keys):
        return Signal.KEY_HELD
    if is_all:
        return Signal.ALL_KEYS_SEALED
    return Signal.NO_MORE_KEYS if there else Signal.NO_KEYS_AT_ALL


def _key(arrived: ArrivedKey, purchase: Purchase, now: datetime) -> Key:
    return Key(
        key_id=arrived.key_id,
        item_id=purchase.item_id,
        external_id=purchase.external_id,
        content_type=arrived.content_type,
        held=arrived.held,
        ready_time=now,
    )
