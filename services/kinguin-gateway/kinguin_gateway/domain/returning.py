"""Giving keys back: when the supplier's rules allow it, and what its answers mean (K49 to K53)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from kinguin_gateway.domain.guard import NoAnswer, NotSent, Rejected, Unreadable
from kinguin_gateway.domain.offers import is_wholesale
from kinguin_gateway.domain.purchase import (
    Intent,
    OrderKey,
    Problem,
    SupplierKeyState,
    SupplierOrder,
    SupplierOrderState,
)

# K50: from the delivery on.
WINDOW = timedelta(hours=24)
# Requests of one return whose answers were unclear; after that a person asks the supplier.
MOST_SENT = 8
# Looks at a return that was taken: with growing gaps up to the longest these are some days.
MOST_LOOKS = 60


class ReturnState(StrEnum):
    """How far a return is. `asked` is written before the request is sent, and stays while its answer is not known."""

    ASKED = "asked"
    ACCEPTED = "accepted"
    RETURNED = "returned"
    REFUNDED = "refunded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class KeyReturn:
    """The one return that a supplier's order may have (K49). `surplus` orders are not the one a purchase keeps.

    `refunded_cents` is what came back of the order's charge, as far as it can be told.
    """

    supplier_order_id: str
    external_id: str
    surplus: bool
    state: ReturnState
    create_time: datetime
    returned_count: int = 0
    refunded_count: int = 0
    refusal: Problem = field(default_factory=Problem)
    sent_count: int = 0
    looks: int = 0
    charged_cents: int | None = None
    refunded_cents: int | None = None


@dataclass(frozen=True, slots=True)
class TakenReturn:
    """The supplier took the return. Its keys may still say DELIVERED (K52)."""

    keys: Sequence[OrderKey]


ReturnReply = TakenReturn | Rejected | Unreadable | NoAnswer | NotSent

_CLEAR_NOES = frozenset({"NoKeysToReturn", "OrderNotSupported", "ConstraintViolation", "OrderNotFound"})
_CLIENT_FAULTS = range(400, 500)
_TOO_MANY_REQUESTS = 429
_GONE_BACK = {SupplierKeyState.RETURNED, SupplierKeyState.REFUNDED}
_ENDED = {SupplierOrderState.CANCELED, SupplierOrderState.REFUNDED}


def excluded_by(intent: Intent, order: SupplierOrder, *, delivered_since: datetime | None, now: datetime) -> str:
    """Return the rule that excludes a return before it is asked for; empty where none does (K50)."""
    if is_wholesale(intent):
        return "an order with wholesale keys cannot be returned"
    if order.preorder:
        return "a pre-order cannot be returned"
    if delivered_since is not None and now - delivered_since > WINDOW:
        return "its keys were delivered more than 24 hours ago"
    keys = order.keys
    if order.state in _ENDED and keys and not any(key.state is SupplierKeyState.DELIVERED for key in keys):
        return "it has no keys that could be returned"
    return ""


def is_clear_no(reply: ReturnReply) -> bool:
    """Tell whether the supplier refused for good. Whatever is not clear may have been taken."""
    return (
        isinstance(reply, Rejected)
        and reply.status in _CLIENT_FAULTS
        and reply.status != _TOO_MANY_REQUESTS
        and reply.problem.kind in _CLEAR_NOES
    )


def may_be_ours(reply: ReturnReply, sent_before: int) -> bool:
    """Tell whether a refusal may only say that our own earlier request, whose answer was lost, was taken (K49)."""
    return isinstance(reply, Rejected) and reply.problem.kind == "OrderNotSupported" and sent_before > 0


def progress(order: SupplierOrder) -> tuple[ReturnState, int, int]:
    """Return how far the keys of an order have gone back, and how many were returned and refunded (K51).

    ACCEPTED while any key that can go back has not, or where the order does not list its keys.
    """
    keys = [key for key in order.keys if key.state is not SupplierKeyState.CANCELED]
    returned = sum(key.state in _GONE_BACK for key in keys)
    refunded = sum(key.state is SupplierKeyState.REFUNDED for key in keys)
    if keys and refunded == len(keys):
        return ReturnState.REFUNDED, returned, refunded
    if keys and returned == len(keys):
        return ReturnState.RETURNED, returned, refunded
    return ReturnState.ACCEPTED, returned, refunded
