"""Whether an order's customer may be forgotten: nothing of it is under way, and nothing of its money is owed."""

from collections.abc import Sequence

from fulfillment.domain.model import Fulfillment, Key, RefundRequest, State
from fulfillment.domain.policy import is_claimable

FORGOTTEN = b""
"""In place of the digest of an order whose customer was forgotten: one could learn from it by trying who it was."""
OVER = frozenset({State.CANCELED, State.REFUNDED})


def is_settled(found: Fulfillment, requests: Sequence[RefundRequest]) -> bool:
    """Tell whether nobody waits for anything of an order any more.

    Keys that could still be opened for the first time are not looked at: vault is the judge of what was opened. What
    needs attention and of which the customer has all money back is between the shop and its supplier.
    """
    if any(is_claimable(purchase) for purchase in found.purchases):
        return False
    if not _is_paid(found):
        return True
    if found.state is State.NEEDS_ATTENTION or not found.purchases:
        return False
    return all(request.is_answered for request in requests)


def unopened(found: Fulfillment) -> Sequence[Key]:
    """Return keys that could still be opened for the first time, as far as we were told."""
    return [key for line in found.lines for key in line.keys if key.is_openable and key.open_time is None]


def may_still_be_paid(found: Fulfillment) -> bool:
    """Tell whether a payment that comes late would have something bought."""
    return not found.purchases and found.state not in OVER


def _is_paid(found: Fulfillment) -> bool:
    """Tell whether some of what was paid has not gone back."""
    paid = found.paid.minor_units if found.paid else 0
    refunded = found.refunded.minor_units if found.refunded else 0
    return paid > refunded
