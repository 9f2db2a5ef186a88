"""A line's state is a fold over its purchases', an order's over its lines'."""

from collections.abc import Iterable

from fulfillment.domain.model import Reason, State

# The least advanced part tells where the whole is; a part that needs a human tells it above all others.
_ADVANCE = (
    State.NEEDS_ATTENTION,
    State.AWAITING_PAYMENT,
    State.PENDING,
    State.PURCHASING,
    State.AWAITING_KEYS,
    State.READY,
    State.DELIVERED,
)


def fold(parts: Iterable[tuple[State, Reason]], *, empty: State = State.AWAITING_PAYMENT) -> tuple[State, Reason]:
    """Return the state of the whole, and the first reason that a part in this state has."""
    told = list(parts)
    state = min((part for part, _ in told), key=_ADVANCE.index, default=empty)
    return state, next((reason for part, reason in told if part is state and reason), Reason.NONE)
