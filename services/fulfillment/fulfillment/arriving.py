"""Stores the names of keys that have arrived, tells of those that can be opened, and lets nobody open the others."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from chassis.failpoints import effect

from fulfillment import facts
from fulfillment.domain.model import Key, KeyId, OrderId, Purchase, State
from fulfillment.domain.policy import missing
from fulfillment.ports.orders import OrderTransaction
from fulfillment.ports.vault import FoundKey, Vault
from fulfillment.working import Turn

_AWAITED = frozenset({State.AWAITING_KEYS, State.READY, State.DELIVERED, State.NEEDS_ATTENTION})


def is_awaited(purchase: Purchase) -> bool:
    """Tell whether keys of a purchase are for its customer: nobody has given it up."""
    return purchase.state in _AWAITED and not purchase.give_up


async def store_keys(turn: Turn, arrived: Sequence[Key]) -> Sequence[Key]:
    """Store the names of keys, tell of those that can be opened, and return what is new, as it is stored."""
    known = {key.key_id for key in turn.keys}
    unknown = [key for key in arrived if key.key_id not in known]
    fresh = await turn.transaction.add_keys(turn.purchase.order_id, _wanted(unknown, turn))
    await tell_keys(turn.transaction, turn.purchase, fresh, now=turn.now)
    return fresh


def _wanted(arrived: Sequence[Key], turn: Turn) -> Sequence[Key]:
    """Revoke what nobody is to open: it was given up meanwhile, or a person has delivered a key in its place."""
    is_late = not is_awaited(turn.purchase)
    room = 0 if is_late else missing(turn.purchase, turn.keys)
    openable = [key for key in arrived if key.is_openable]
    surplus = {key.key_id for key in (arrived if is_late else openable[room:])}
    # What its owner has opened nobody takes away: it is noted as it is.
    return [
        replace(key, revoke_time=turn.now) if key.key_id in surplus and key.open_time is None else key
        for key in arrived
    ]


async def tell_keys(transaction: OrderTransaction, purchase: Purchase, fresh: Sequence[Key], *, now: datetime) -> None:
    """Tell of keys that are new and can be opened, and let the customer be written to."""
    openable = [key for key in fresh if key.is_openable]
    for key in openable:
        await facts.tell_key_ready(transaction, purchase.order_id, key, now=now)
    if openable:
        await transaction.want_mail(purchase.order_id, now=now)


def strays(found: Sequence[FoundKey], purchase: Purchase, line_keys: Sequence[Key]) -> Sequence[FoundKey]:
    """Return what vault has of a purchase at the supplier and no row of its line: the answer that told it was lost."""
    if not purchase.supplier_order_id:
        return ()
    known, origin = {key.key_id for key in line_keys}, (purchase.supplier_order_id, purchase.item_id)
    return [each for each in found if (each.supplier_order_id, each.item_id) == origin and each.key_id not in known]


async def store_strays(turn: Turn, found: Sequence[FoundKey]) -> Sequence[Key]:
    """Store what vault has of a purchase as if it had been told just now, and return what is new.

    What is not sealed yet is stored only to be revoked: whoever waits for it hears of it once it can be opened.
    """
    purchase, now = turn.purchase, turn.now
    arrived = [
        Key(
            key_id=each.key_id,
            item_id=purchase.item_id,
            external_id=purchase.external_id,
            content_type=each.content_type,
            held=each.held,
            ready_time=now,
            open_time=each.open_time,
            revoke_time=now if each.taken_back and each.open_time is None else None,
        )
        for each in strays(found, purchase, turn.line.keys)
        if each.sealed or not is_awaited(purchase)
    ]
    return await store_keys(turn, arrived)


async def revoke_spare(vault: Vault, order_id: OrderId, keys: Sequence[Key]) -> None:
    """Have keys revoked that were stored as such and that no purchase on its way back answers for.

    Dies before it, or vault does not say: the rows let nobody open them, and reconciliation has them revoked.
    """
    spare: list[KeyId] = [key.key_id for key in keys if key.revoke_time is not None]
    if spare:
        await effect("fulfillment.spare.call", lambda: vault.revoke_keys(order_id, spare, why="not needed"))
