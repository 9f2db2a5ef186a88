"""A line's state is a fold over its purchases', an order's over its lines'."""

from collections.abc import Iterable, Mapping

from fulfillment.domain.model import Fulfillment, Reason, State
from fulfillment.domain.payments import PaymentVerdict

# While any part is here, the least advanced one tells where the whole is; what needs a human tells it above all others.
_MOVING = (
    State.NEEDS_ATTENTION,
    State.AWAITING_PAYMENT,
    State.PENDING,
    State.PURCHASING,
    State.AWAITING_KEYS,
)
# What a purchase goes through while it is given up is not the customer's to follow: only whether it is certain yet.
_SHOWN: Mapping[State, State] = {
    State.WITHDRAWING: State.PURCHASING,
    State.REVOKING: State.AWAITING_KEYS,
    State.RETURNING: State.CANCELED,
    State.SHREDDING: State.CANCELED,
}
ORDER_STATES = frozenset(
    {*_MOVING, State.READY, State.DELIVERED, State.PARTLY_CANCELED, State.CANCELED, State.REFUNDED}
)
"""States that an order or a line can be in."""
_GONE = frozenset({State.CANCELED, State.REFUNDED})


def fold(parts: Iterable[tuple[State, Reason]], *, empty: State = State.AWAITING_PAYMENT) -> tuple[State, Reason]:
    """Return the state of the whole, and the first reason that a part in this state has.

    A purchase in whose place another stands is no part of anything.
    """
    told = [(_SHOWN.get(state, state), reason) for state, reason in parts if state is not State.SUPERSEDED]
    state = _whole({state for state, _ in told}) if told else empty
    causes = _GONE | {State.PARTLY_CANCELED} if state is State.PARTLY_CANCELED else {state}
    return state, next((reason for part, reason in told if part in causes and reason), Reason.NONE)


def _whole(states: set[State]) -> State:
    moving = [state for state in _MOVING if state in states]
    if moving:
        return moving[0]
    if states <= _GONE:
        return State.CANCELED if State.CANCELED in states else State.REFUNDED
    if states & _GONE or State.PARTLY_CANCELED in states:
        return State.PARTLY_CANCELED
    return State.READY if State.READY in states else State.DELIVERED


def fold_order(found: Fulfillment, verdict: PaymentVerdict) -> tuple[State, Reason]:
    """Return the state of an order: a fold over its lines', unless its money tells more."""
    if found.purchases:
        if verdict is PaymentVerdict.MISMATCH:
            return State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH
        return fold((line.state, line.reason) for line in found.lines)
    if verdict is PaymentVerdict.GIVEN_BACK:
        return State.REFUNDED, Reason.NONE
    if found.cancel_time is not None:
        return State.CANCELED, Reason.CANCEL_ASKED
    if verdict in {PaymentVerdict.MISMATCH, PaymentVerdict.CUT}:
        return State.NEEDS_ATTENTION, Reason.PAYMENT_MISMATCH
    return State.AWAITING_PAYMENT, Reason.NONE
