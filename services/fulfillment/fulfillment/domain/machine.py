"""The whole life of one purchase as a table. A pair that is absent is illegal; nothing else decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from fulfillment.domain.model import Reason, State


class Signal(Enum):
    """What may happen to a purchase."""

    CLAIMED = auto()
    """A worker has time for it."""
    ORDER_PLACED = auto()
    """The supplier took the order."""
    ORDER_REFUSED = auto()
    """The supplier said a clear no: nothing was bought."""
    ORDER_IN_DOUBT = auto()
    """It was sent and nobody knows; the same question again settles it."""
    BUYING_PAUSED = auto()
    """Nothing was sent: buying is paused, and the purchase has its place in the line."""
    NO_ANSWER = auto()
    """Whom we asked could not say. Nothing is known that was not known before."""
    SOME_KEYS_SEALED = auto()
    """Keys may have arrived; more are to come."""
    ALL_KEYS_SEALED = auto()
    """Every key of the purchase can be opened."""
    KEY_HELD = auto()
    """The supplier sold us one of its keys before."""
    NO_MORE_KEYS = auto()
    """The supplier ended the order with fewer keys than we bought."""
    KEY_UNREADABLE = auto()
    """What the supplier delivered cannot be sealed as a key, however often we try."""
    PURCHASE_UNKNOWN = auto()
    """The supplier's side knows nothing of a purchase that it told us it had placed."""
    TOO_OLD = auto()
    """It has been in its state for longer than is normal."""
    ALL_KEYS_OPENED = auto()
    """Its owner has opened every key of it."""


class Command(Enum):
    """What is to be done once the new state is committed."""

    PLACE_ORDER = auto()
    """Buy. The only command that spends money."""
    SETTLE_ORDER = auto()
    """Ask again, under the same reference, what became of the order."""
    COLLECT_KEYS = auto()
    """Have what has been delivered sealed."""


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a purchase goes, what is done then, and why a human is needed or what is waited for; None keeps the why."""

    state: State
    commands: tuple[Command, ...] = ()
    reason: Reason | None = Reason.NONE

    def reason_after(self, before: Reason) -> Reason:
        """Return the why of a purchase that goes here."""
        return before if self.reason is None else self.reason


S, G, C, R, T = State, Signal, Command, Reason, Transition
KEPT = None

# fmt: off
TRANSITIONS: Mapping[tuple[State, Signal], Transition] = {
    (S.PENDING,         G.CLAIMED):          T(S.PURCHASING,      (C.PLACE_ORDER,)),
    (S.PENDING,         G.TOO_OLD):          T(S.NEEDS_ATTENTION, reason=R.PURCHASE_TOO_OLD),

    # A claim here follows a crash, a doubt or no answer: whether it was sent is for the supplier's side to say.
    (S.PURCHASING,      G.CLAIMED):          T(S.PURCHASING,      (C.SETTLE_ORDER,), reason=KEPT),
    (S.PURCHASING,      G.ORDER_PLACED):     T(S.AWAITING_KEYS),
    (S.PURCHASING,      G.ORDER_REFUSED):    T(S.NEEDS_ATTENTION, reason=R.PURCHASE_REFUSED),
    (S.PURCHASING,      G.ORDER_IN_DOUBT):   T(S.PURCHASING),
    (S.PURCHASING,      G.BUYING_PAUSED):    T(S.PURCHASING,      reason=R.BUYING_PAUSED),
    (S.PURCHASING,      G.NO_ANSWER):        T(S.PURCHASING,      reason=KEPT),
    (S.PURCHASING,      G.TOO_OLD):          T(S.NEEDS_ATTENTION, reason=R.PURCHASE_TOO_OLD),

    (S.AWAITING_KEYS,   G.CLAIMED):          T(S.AWAITING_KEYS,   (C.COLLECT_KEYS,)),
    (S.AWAITING_KEYS,   G.SOME_KEYS_SEALED): T(S.AWAITING_KEYS),
    (S.AWAITING_KEYS,   G.NO_ANSWER):        T(S.AWAITING_KEYS),
    (S.AWAITING_KEYS,   G.ALL_KEYS_SEALED):  T(S.READY),
    (S.AWAITING_KEYS,   G.KEY_HELD):         T(S.NEEDS_ATTENTION, reason=R.DUPLICATE_KEY),
    (S.AWAITING_KEYS,   G.NO_MORE_KEYS):     T(S.NEEDS_ATTENTION, reason=R.KEYS_MISSING),
    (S.AWAITING_KEYS,   G.KEY_UNREADABLE):   T(S.NEEDS_ATTENTION, reason=R.KEY_UNREADABLE),
    (S.AWAITING_KEYS,   G.PURCHASE_UNKNOWN): T(S.NEEDS_ATTENTION, reason=R.PURCHASE_UNKNOWN),
    (S.AWAITING_KEYS,   G.TOO_OLD):          T(S.NEEDS_ATTENTION, reason=R.KEYS_TOO_LATE),

    (S.READY,           G.ALL_KEYS_OPENED):  T(S.DELIVERED),
}
# fmt: on

# An answer that comes again, or later than another worker's: what it tells is known already.
_KNOWN_BY = {
    Signal.ORDER_PLACED: {S.AWAITING_KEYS, S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.ORDER_REFUSED: {S.NEEDS_ATTENTION},
    Signal.ORDER_IN_DOUBT: {S.AWAITING_KEYS, S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.BUYING_PAUSED: {S.AWAITING_KEYS, S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.NO_ANSWER: {S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.SOME_KEYS_SEALED: {S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.ALL_KEYS_SEALED: {S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.KEY_HELD: {S.NEEDS_ATTENTION},
    # Told of an earlier moment than the answer that brought the last key.
    Signal.NO_MORE_KEYS: {S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.KEY_UNREADABLE: {S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.PURCHASE_UNKNOWN: {S.READY, S.DELIVERED, S.NEEDS_ATTENTION},
    Signal.TOO_OLD: {S.NEEDS_ATTENTION},
    Signal.ALL_KEYS_OPENED: {S.DELIVERED, S.NEEDS_ATTENTION},
}

REPEATS = frozenset((state, signal) for signal, states in _KNOWN_BY.items() for state in states)
"""Pairs that change nothing."""


class IllegalSignal(Exception):
    """The pair is in neither table: a bug, not an event."""


def decide(state: State, signal: Signal) -> Transition | None:
    """Return where the purchase goes and what must then be done; None when the signal tells nothing new."""
    if (state, signal) in REPEATS:
        return None
    try:
        return TRANSITIONS[state, signal]
    except KeyError:
        raise IllegalSignal(f"{signal.name} in {state.name}") from None
