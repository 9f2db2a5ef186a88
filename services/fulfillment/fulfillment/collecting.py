"""Has keys collected and sealed, and notes which of them their owner has opened."""

from collections.abc import Sequence
from datetime import datetime

from chassis.clock import Clock
from chassis.failpoints import effect

from fulfillment.arriving import is_awaited, revoke_spare, store_keys
from fulfillment.domain.machine import Signal
from fulfillment.domain.model import Key, KeyId, Purchase, State
from fulfillment.domain.policy import is_all_opened
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
from fulfillment.ports.vault import Vault
from fulfillment.working import Bench, Turn


class KeyCollector:
    """Collects keys of what was claimed."""

    def __init__(self, bench: Bench, supplier: Supplier, vault: Vault) -> None:
        self._bench = bench
        self._supplier = supplier
        self._vault = vault

    async def collect(self, buying: Buying) -> Claimed | None:
        """Have what has been delivered sealed, and note what arrived."""
        answer = await effect("fulfillment.collect.call", lambda: self._supplier.collect(buying))
        fresh: Sequence[Key] = ()
        async with self._bench.turn(buying, "collect") as turn:
            if isinstance(answer, Collected):
                fresh = await _store(turn, answer)
            turn.has_news = bool(fresh)
            await _move(turn, answer)
        if turn.moved.state is not State.REVOKING:
            await revoke_spare(self._vault, turn.purchase.order_id, fresh)
        return None


async def _store(turn: Turn, answer: Collected) -> Sequence[Key]:
    purchase = turn.purchase
    await turn.transaction.name_product(purchase.order_id, purchase.item_id, answer.product_name)
    return await store_keys(turn, [_key(each, purchase, turn.now) for each in answer.keys])


async def _move(turn: Turn, answer: CollectAnswer) -> None:
    if not is_awaited(turn.purchase):
        if turn.has_news:
            await turn.move(turn.purchase, Signal.KEYS_ARRIVED)
        return
    more = isinstance(answer, Collected) and answer.more_ready
    await turn.move(turn.purchase, _signal(answer, turn), at_once=more)
    if turn.moved.state is State.READY and not turn.has_news and is_all_opened(turn.keys):
        # Its keys were there before, and opened while a person was asked.
        await turn.move(turn.moved, Signal.ALL_KEYS_OPENED)


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
    if answer.unreadable and not is_all and not answer.more_ready:
        # Everything that can be opened is stored by now; a person has only the rest to mend.
        return Signal.KEY_UNREADABLE
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
