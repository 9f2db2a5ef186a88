"""From what was ordered to what is bought: chunks within the supplier's limits, under derived references."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from fulfillment.domain.model import ExternalId, Item, ItemId, OrderId

MOST_PER_PURCHASE = 9
"""K19: at most 9 keys of one offer in an order."""

# Never change either: a restored database must derive the references that are at the supplier already.
_PREFIX = "kf1"
_DIGEST_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class Planned:
    """One purchase to be made."""

    external_id: ExternalId
    item_id: ItemId
    chunk: int
    attempt: int
    quantity: int


def external_id(order_id: OrderId, item_id: ItemId, chunk: int, attempt: int) -> ExternalId:
    """Derive our reference at the supplier. Attempt n + 1 exists only after attempt n was refused."""
    text = "\x1f".join((order_id, item_id, str(chunk), str(attempt)))
    digest = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()
    return ExternalId(f"{_PREFIX}-{digest[:_DIGEST_CHARACTERS]}")


def plan(order_id: OrderId, items: Sequence[Item]) -> list[Planned]:
    """Return the purchases of an order, each of one line: two lines of one product could not be told apart (K47)."""
    return [
        Planned(external_id(order_id, item.item_id, chunk, 1), item.item_id, chunk, 1, quantity)
        for item in items
        for chunk, quantity in enumerate(_chunks(item.quantity))
    ]


def _chunks(quantity: int) -> list[int]:
    full, rest = divmod(quantity, MOST_PER_PURCHASE)
    return [MOST_PER_PURCHASE] * full + ([rest] if rest else [])
