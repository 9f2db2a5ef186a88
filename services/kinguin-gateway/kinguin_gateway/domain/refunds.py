"""What an order of the supplier's cost us in the end (K25, K40, K41)."""

from collections import Counter
from collections.abc import Mapping

from kinguin_gateway.domain.purchase import OrderLine, SupplierKeyState, SupplierOrder

#: Keys of which the money came back: given back and paid back, or never delivered.
PAID_BACK = frozenset({SupplierKeyState.REFUNDED, SupplierKeyState.CANCELED})


def paid_back_cents(order: SupplierOrder) -> int | None:
    """Return what was paid back of an order's charge; None where the supplier's answer does not tell it.

    With the last key everything that was charged has come back. Before that it is known only where each key's price is
    told and nothing else was charged: nobody says when a surcharge comes back.
    """
    if any(not line.keys for line in order.lines) or not order.lines:
        return None
    gone = [key for key in order.keys if key.state in PAID_BACK]
    if not gone:
        return 0
    if len(gone) == len(order.keys) == order.quantity:
        return order.charged_cents
    if order.charged_cents is None or order.charged_cents != order.total_cents:
        return None
    shares = [_share(line) for line in order.lines]
    return None if None in shares else sum(share for share in shares if share is not None)


def _share(line: OrderLine) -> int | None:
    gone = sum(key.state in PAID_BACK for key in line.keys)
    if not gone:
        return 0
    return None if line.unit_cents is None else line.unit_cents * gone


def key_states(order: SupplierOrder) -> Mapping[SupplierKeyState | None, int] | None:
    """Return how many keys of an order are in which state; None where it does not list them."""
    listed = order.delivered_count is not None
    return Counter(key.state for key in order.keys) if listed else None
