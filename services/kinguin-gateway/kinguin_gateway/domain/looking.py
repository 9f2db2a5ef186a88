"""When to look at a purchase again, and what is worth telling about it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from kinguin_gateway.domain.guard import Bounds, absence_time
from kinguin_gateway.domain.purchase import Purchase, SupplierOrder, SupplierOrderState

GROWTH = 1.6
# A tenth more or less: purchases of one rush are not looked at in one rush for ever.
JITTER = 0.1
# An absence is proved by a search that begins after the bound, not at it.
SETTLE_MARGIN = timedelta(milliseconds=100)
RELEASE_NEAR = timedelta(hours=1)
LONGEST_RELEASE_GAP = timedelta(days=1)
_MOST_LOOKS = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon to look first, and how long to wait at most."""

    first: timedelta
    longest: timedelta


def gap(pace: Pace, looks: int, chance: float) -> timedelta:
    """Return how long to wait after so many looks without news; `chance` in [0, 1) spreads it."""
    seconds = pace.first.total_seconds() * GROWTH ** min(looks, _MOST_LOOKS)
    spread = 1 - JITTER + 2 * JITTER * chance
    return timedelta(seconds=min(seconds, pace.longest.total_seconds()) * spread)


def doubt_gap(wait: timedelta, *, now: datetime, send_deadline: datetime, bounds: Bounds) -> timedelta:
    """Return how long to wait before the next search: the usual gap, but never past the moment of proof."""
    until_proof = absence_time(send_deadline, bounds) + SETTLE_MARGIN - now
    return min(wait, until_proof) if until_proof > timedelta(0) else wait


def release_gap(wait: timedelta, *, now: datetime, release_time: datetime) -> timedelta:
    """Return how long to wait for a pre-order (K37): half of what is left until its release, at most a day.

    From an hour before on it is asked for as any other; a date that moves is read at every look.
    """
    left = release_time - now
    return wait if left <= RELEASE_NEAR else max(wait, min(left / 2, LONGEST_RELEASE_GAP))


def delivered_count(purchase: Purchase, order: SupplierOrder) -> int:
    """Return how many keys the supplier has delivered, as far as can be told without fetching them.

    Fetching may count as claiming (K50), so keys are not listed just to count them.
    """
    if order.delivered_count is not None:
        return order.delivered_count
    return purchase.intent.quantity if order.state is SupplierOrderState.COMPLETED else purchase.delivered_count


def is_change(purchase: Purchase, order: SupplierOrder) -> bool:
    """Tell whether the supplier's order moved since it was last read."""
    return (
        order.state is not purchase.supplier_order_state or delivered_count(purchase, order) != purchase.delivered_count
    )


def is_news(purchase: Purchase, order: SupplierOrder) -> bool:
    """Tell whether what was read is worth an event: it moved, or delivered keys still wait to be collected."""
    return is_change(purchase, order) or delivered_count(purchase, order) > purchase.sealed_count


def is_finished(purchase: Purchase, order: SupplierOrder, sealed_count: int) -> bool:
    """Tell whether nothing more can come of the purchase, so that nobody needs to look again.

    A completed order that delivered less than was ordered is not finished: it may flap, and it must not be forgotten.
    """
    if order.state is SupplierOrderState.PROCESSING:
        return False
    if order.state is SupplierOrderState.COMPLETED:
        return sealed_count >= purchase.intent.quantity - order.canceled_count
    return sealed_count >= delivered_count(purchase, order)
