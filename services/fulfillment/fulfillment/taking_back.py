"""Takes back what was given up: no more is bought, nobody opens what was, the supplier has it back, nothing is left.

Each step is asked for again until it is answered, and means the same when it is: vault and kinguin-gateway know what
they were asked. What cannot be taken back is kept, revoked, for a human.

Vault may have sealed keys whose names were told in an answer that was lost, and nobody collects any more. So it is
asked what it has: before anything is revoked, and once more before all is over, for what was under way meanwhile.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from chassis.failpoints import effect

from fulfillment.arriving import store_strays, strays
from fulfillment.buying import note_placed
from fulfillment.domain.machine import Signal
from fulfillment.domain.model import Key, KeyId, Purchase
from fulfillment.ports.supplier import (
    Buying,
    Claimed,
    InDoubt,
    NoAnswer,
    Placed,
    Refused,
    Returned,
    ReturnRefused,
    ReturnUnderWay,
    Supplier,
)
from fulfillment.ports.vault import FoundKey, NoWord, Revoked, SomeOpened, Vault
from fulfillment.working import Bench, Turn

# Vault's database works on each for a moment; more at one time would only queue there.
SHREDS_AT_ONCE = 8
# A key may be opened between two questions; past this many the purchase is looked at again later.
MOST_ROUNDS = 4


class Taker:
    """Takes back what was claimed."""

    def __init__(self, bench: Bench, supplier: Supplier, vault: Vault) -> None:
        self._bench = bench
        self._supplier = supplier
        self._vault = vault

    async def withdraw(self, buying: Buying) -> Claimed | None:
        """Make sure that it is never bought, or learn that it was."""
        answer = await effect("fulfillment.withdraw.call", lambda: self._supplier.withdraw(buying))
        async with self._bench.turn(buying, "withdraw") as turn:
            match answer:
                case Placed():
                    await note_placed(turn, answer)
                case Refused(kind):
                    await turn.move(replace(turn.purchase, refusal=kind), Signal.ORDER_WITHDRAWN)
                case InDoubt(ask_after):
                    await turn.move(turn.purchase, Signal.ORDER_IN_DOUBT, at_least=ask_after)
                case NoAnswer():
                    await turn.move(turn.purchase, Signal.NO_ANSWER)
        return None

    async def revoke(self, buying: Buying) -> Claimed | None:
        """Have its keys revoked, all that vault has, and note which of them were opened before."""
        found = await effect("fulfillment.revoke.find", lambda: self._vault.keys_of(buying.purchase.order_id))
        keys = None if isinstance(found, NoWord) else await self._take_in(buying, found)
        if keys is None:
            async with self._bench.turn(buying, "revoke") as turn:
                await turn.move(turn.purchase, Signal.NO_ANSWER)
            return None
        revoked = await effect("fulfillment.revoke.call", lambda: self._revoke(buying.purchase, keys))
        async with self._bench.turn(buying, "revoke") as turn:
            if revoked is None:
                await turn.move(turn.purchase, Signal.NO_ANSWER)
                return None
            opened = [key.key_id for key in keys if key.key_id not in revoked]
            for key_id in opened:
                # Vault's event may not have come yet; it will find this noted.
                await turn.transaction.open_key(key_id, now=turn.now)
            await turn.transaction.revoke_keys(revoked, now=turn.now)
            turn.has_news = bool(keys)
            if any(key.key_id not in {*revoked, *opened} for key in turn.keys):
                await turn.move(turn.purchase, Signal.KEYS_ARRIVED)
                return None
            await turn.move(turn.purchase, _signal(turn, revoked, opened))
        return None

    async def _take_in(self, buying: Buying, found: Sequence[FoundKey]) -> Sequence[Key]:
        """Store what vault has and our rows do not, as revoked; return every key of the purchase."""
        purchase = buying.purchase
        line_keys = await self._line_keys(purchase)
        if strays(found, purchase, line_keys):
            async with self._bench.turn(buying, "take_in") as turn:
                turn.has_news = bool(await store_strays(turn, found))
            line_keys = await self._line_keys(purchase)
        return _of(purchase, line_keys)

    async def _revoke(self, purchase: Purchase, keys: Sequence[Key]) -> Sequence[KeyId] | None:
        """Revoke what was not opened, and return it; None where vault has not said."""
        wanted = [key.key_id for key in keys if key.open_time is None]
        for _ in range(MOST_ROUNDS):
            if not wanted:
                return []
            match await self._vault.revoke_keys(purchase.order_id, wanted, why=purchase.give_up.value):
                case Revoked():
                    return wanted
                case SomeOpened(opened):
                    wanted = [key_id for key_id in wanted if key_id not in opened]
                case NoWord():
                    return None
        return None

    async def give_back(self, buying: Buying) -> Claimed | None:
        """Ask the supplier to take its keys back."""
        answer = await effect("fulfillment.return.call", lambda: self._supplier.give_back(buying.purchase))
        async with self._bench.turn(buying, "return") as turn:
            match answer:
                case ReturnUnderWay():
                    await turn.move(turn.purchase, Signal.RETURN_UNDER_WAY)
                case Returned():
                    await turn.move(turn.purchase, Signal.KEYS_RETURNED)
                case ReturnRefused(why):
                    await turn.move(replace(turn.purchase, refusal=why), Signal.RETURN_REFUSED)
                case NoAnswer():
                    await turn.move(turn.purchase, Signal.NO_ANSWER)
        return None

    async def shred(self, buying: Buying) -> Claimed | None:
        """Have its keys destroyed, unless vault has one that came meanwhile: that is revoked first."""
        purchase = buying.purchase
        found = await effect("fulfillment.shred.find", lambda: self._vault.keys_of(purchase.order_id))
        line_keys = await self._line_keys(purchase)
        if not isinstance(found, NoWord) and strays(found, purchase, line_keys):
            async with self._bench.turn(buying, "shred") as turn:
                turn.has_news = bool(await store_strays(turn, found))
                await turn.move(turn.purchase, Signal.KEYS_ARRIVED)
            return None
        unopened = [key for key in _of(purchase, line_keys) if key.open_time is None]
        done = not isinstance(found, NoWord) and await effect(
            "fulfillment.shred.call", lambda: self._shred(purchase, unopened)
        )
        async with self._bench.turn(buying, "shred") as turn:
            await turn.move(turn.purchase, Signal.KEYS_SHREDDED if done else Signal.NO_ANSWER)
        return None

    async def _shred(self, purchase: Purchase, keys: Sequence[Key]) -> bool:
        """Destroy keys, a few at a time; False where any may still be there."""
        for begin in range(0, len(keys), SHREDS_AT_ONCE):
            some = keys[begin : begin + SHREDS_AT_ONCE]
            done = await asyncio.gather(
                *(self._vault.shred_key(purchase.order_id, key.key_id, why=purchase.give_up.value) for key in some)
            )
            if not all(done):
                return False
        return True

    async def _line_keys(self, purchase: Purchase) -> Sequence[Key]:
        async with self._bench.orders.transaction() as transaction:
            found = await transaction.load(purchase.order_id)
        lines = found.lines if found else ()
        return [key for line in lines if line.item.item_id == purchase.item_id for key in line.keys]


def _of(purchase: Purchase, keys: Sequence[Key]) -> Sequence[Key]:
    return [key for key in keys if key.external_id == purchase.external_id]


def _signal(turn: Turn, revoked: Sequence[KeyId], opened: Sequence[KeyId]) -> Signal:
    if opened:
        is_all = not revoked and len(opened) >= turn.purchase.quantity
        return Signal.ALL_KEYS_OPENED if is_all else Signal.KEYS_PARTLY_OPENED
    return Signal.KEYS_REVOKED if turn.purchase.supplier_order_id else Signal.BOUGHT_ELSEWHERE
