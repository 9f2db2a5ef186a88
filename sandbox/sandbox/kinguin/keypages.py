"""Pages of keys as they should be, and as they are on a bad day. Pure but for the rules' counts.

The contract promises no total and no order (K44): whoever pages must bear pages that are shorter or longer than asked
for, that overlap, and that hold what was never ordered. No rule loses a key: paging until an empty page finds all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.kinguin import serials
from sandbox.kinguin.catalogue import PRODUCTS, TEXT
from sandbox.kinguin.faults import Faults
from sandbox.kinguin.mischief import PAGE_ACTIONS, Rule

_SHORT_KEYS, _OVERLAPPING_KEYS = 10, 5

Key = dict[str, object]


@dataclass(frozen=True, slots=True)
class Window:
    """Which of an order's keys are on a page: so many from the first on, counted from 0."""

    start: int
    count: int


def window_of(page: int, limit: int, rule: Rule | None = None) -> Window:
    """Return the keys of a page, counted from 1; a rule of PAGE_ACTIONS makes it another size or place."""
    size = step = limit
    match rule.action if rule else None:
        case "pages_short":
            size = step = max(1, min(limit, _given(rule, _SHORT_KEYS)))
        case "pages_long":
            size = step = max(limit, _given(rule, 2 * limit))
        case "pages_overlap":
            step = max(1, limit - _given(rule, _OVERLAPPING_KEYS))
    return Window((page - 1) * step, size)


def _given(rule: Rule | None, default: int) -> int:
    return default if rule is None or rule.keys is None else rule.keys


def asked_window(page: int, limit: int, faults: Faults) -> Window:
    """Return the keys of a page as the rules of the moment have it."""
    rules = (faults.take(action, "listKeys") for action in PAGE_ACTIONS)
    return window_of(page, limit, next((rule for rule in rules if rule), None))


def tampered(keys: Sequence[Key], order_id: str, faults: Faults) -> list[Key]:
    """Return a page with what the rules of the moment put into it or do to it."""
    page = [dict(key) for key in keys]
    if page and (rule := faults.take("unknown_type", "listKeys")):
        page[0]["type"] = rule.type
    pictures = [key for key in page if key["type"] != TEXT]
    if pictures and faults.take("broken_picture", "listKeys"):
        # Neither base64 nor a picture: characters that are not in the alphabet, and an end that is missing.
        pictures[0]["serial"] = f"{str(pictures[0]['serial'])[:-7]}!?*"
    if page and faults.take("foreign_key", "listKeys"):
        page.insert(0, _foreign_key(order_id, str(page[0]["productId"])))
    return page


def _foreign_key(order_id: str, product_id: str) -> Key:
    """Return a key of another product, which nobody ordered and nobody paid for (K47)."""
    other = next(product for product in PRODUCTS if product.product_id != product_id)
    key_id, serial = serials.foreign_key(order_id)
    return {
        "id": key_id,
        "serial": serial,
        "type": TEXT,
        "name": other.name,
        "kinguinId": other.kinguin_id,
        "productId": other.product_id,
        "offerId": other.offers[0].offer_id,
    }
