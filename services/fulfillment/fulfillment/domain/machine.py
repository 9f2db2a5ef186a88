"""The whole life of one purchase as a table. A pair that is absent is illegal; nothing else decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from fulfillment.domain.model import Reason, State


class Signal(Enum):
    """What may happen to a purchase."""

    CLAIMED = auto()
    """A worker has time for it."""
    PLAN_MADE = auto()
    """It is written down which offer is bought, how many of it and for how much at most."""
    PLAN_COVERED = auto()
    """What it was to buy was bought already, under references that our database had forgotten."""
    PLAN_POSTPONED = auto()
    """Nothing can be bought within the limits now; there is time to look again."""
    ORDER_PLACED = auto()
    """The supplier took the order."""
    ORDER_REFUSED = auto()
    """The supplier said a clear no, and what comes next is for a human to say: nothing was bought."""
    OFFER_REFUSED = auto()
    """The supplier said a clear no that another offer, or another moment, may not share: nothing was bought."""
    SALE_REFUSED = auto()
    """The supplier said a clear no, and the money is to go back: nothing was bought."""
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
    NO_KEYS_AT_ALL = auto()
    """The supplier ended the order without a key."""
    KEY_UNREADABLE = auto()
    """What the supplier delivered cannot be sealed as a key, however often we try."""
    PURCHASE_UNKNOWN = auto()
    """The supplier's side knows nothing of a purchase that it told us it had placed."""
    KEY_CORRUPTED = auto()
    """Vault cannot open one of its keys: what is stored of it was changed or is gone."""
    TOO_OLD = auto()
    """It has been in its state for longer than is normal."""
    ALL_KEYS_OPENED = auto()
    """Its owner has opened every key of it."""
    DELIVERED_BY_HAND = auto()
    """A person has delivered the keys that were missing."""
    KEYS_MENDED = auto()
    """A person has restored, or replaced, the key that did not open; none is missing."""
    RETRY_PLANNING = auto()
    """A person lets it go on where nothing was planned yet."""
    RETRY_PLACING = auto()
    """A person lets it be asked again what became of the order."""
    RETRY_ANEW = auto()
    """A person lets another attempt be made of what the supplier refused."""
    RETRY_COLLECTING = auto()
    """A person lets its keys be collected again."""
    GIVEN_UP_UNBOUGHT = auto()
    """Nothing more is wanted of it, and as far as we know nothing was bought."""
    GIVEN_UP_BOUGHT = auto()
    """Nothing more is wanted of it; it was bought, or its keys came from a person."""
    REST_GIVEN_UP = auto()
    """What is missing of it is not wanted any more; the keys that are there stay."""
    LOSS_ACCEPTED = auto()
    """A person has decided to keep keys that the supplier does not take back."""
    ORDER_WITHDRAWN = auto()
    """Nothing was bought under its reference, and nothing ever will be."""
    KEYS_REVOKED = auto()
    """Nobody can open its keys any more; the supplier may take them back."""
    BOUGHT_ELSEWHERE = auto()
    """Nobody can open its keys any more, and they are not the supplier's to take back."""
    KEYS_PARTLY_OPENED = auto()
    """Its owner has opened some of its keys, the others were revoked: the supplier takes back all or nothing."""
    KEYS_ARRIVED = auto()
    """A key came after it was given up: an answer that was on its way."""
    RETURN_UNDER_WAY = auto()
    """The supplier is asked to take its keys back, and has not finished."""
    KEYS_RETURNED = auto()
    """The supplier took its keys back."""
    RETURN_REFUSED = auto()
    """The supplier does not take its keys back."""
    KEYS_SHREDDED = auto()
    """Its keys are destroyed."""
    MONEY_RETURNED = auto()
    """The customer has the money back."""


class Command(Enum):
    """What is to be done once the new state is committed."""

    PLAN_PURCHASE = auto()
    """Read the product, and what is known of the order already, and write down what is bought."""
    PLACE_ORDER = auto()
    """Buy. The only command that spends money."""
    SETTLE_ORDER = auto()
    """Ask again, under the same reference, what became of the order."""
    COLLECT_KEYS = auto()
    """Have what has been delivered sealed."""
    WITHDRAW_ORDER = auto()
    """Make sure that it is never bought, or learn that it was."""
    REVOKE_KEYS = auto()
    """Have vault open its keys to nobody, unless they were opened."""
    RETURN_KEYS = auto()
    """Ask the supplier to take its keys back."""
    SHRED_KEYS = auto()
    """Have its keys destroyed."""


class Effect(Enum):
    """What is written in the transaction of the new state."""

    NEXT_ATTEMPT = auto()
    """Another purchase takes its place."""
    MONEY_BACK = auto()
    """The shop is told what will not come, and asked to pay it back unless it has."""


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a purchase goes, what is done then, and why a human is needed or what is waited for; None keeps the why."""

    state: State
    commands: tuple[Command, ...] = ()
    reason: Reason | None = Reason.NONE
    effect: Effect | None = None

    def reason_after(self, before: Reason) -> Reason:
        """Return the why of a purchase that goes here."""
        return before if self.reason is None else self.reason


S, G, C, R, E, T = State, Signal, Command, Reason, Effect, Transition
KEPT = None

# fmt: off
TRANSITIONS: Mapping[tuple[State, Signal], Transition] = {
    (S.PENDING,         G.CLAIMED):            T(S.PENDING,         (C.PLAN_PURCHASE,), reason=KEPT),
    (S.PENDING,         G.PLAN_MADE):          T(S.PURCHASING,      (C.PLACE_ORDER,)),
    (S.PENDING,         G.PLAN_COVERED):       T(S.SUPERSEDED),
    (S.PENDING,         G.PLAN_POSTPONED):     T(S.PENDING,         reason=R.WAITING_FOR_STOCK),
    (S.PENDING,         G.NO_ANSWER):          T(S.PENDING,         reason=KEPT),
    (S.PENDING,         G.ORDER_REFUSED):      T(S.NEEDS_ATTENTION, reason=R.PURCHASE_REFUSED),
    (S.PENDING,         G.SALE_REFUSED):       T(S.CANCELED,        reason=R.PURCHASE_REFUSED, effect=E.MONEY_BACK),
    (S.PENDING,         G.TOO_OLD):            T(S.NEEDS_ATTENTION, reason=R.PURCHASE_TOO_OLD),
    (S.PENDING,         G.GIVEN_UP_UNBOUGHT):  T(S.WITHDRAWING),

    # A claim here follows a crash, a doubt or no answer: whether it was sent is for the supplier's side to say.
    (S.PURCHASING,      G.CLAIMED):            T(S.PURCHASING,      (C.SETTLE_ORDER,), reason=KEPT),
    (S.PURCHASING,      G.ORDER_PLACED):       T(S.AWAITING_KEYS),
    (S.PURCHASING,      G.ORDER_REFUSED):      T(S.NEEDS_ATTENTION, reason=R.PURCHASE_REFUSED),
    (S.PURCHASING,      G.OFFER_REFUSED):      T(S.SUPERSEDED,      reason=R.PURCHASE_REFUSED, effect=E.NEXT_ATTEMPT),
    (S.PURCHASING,      G.SALE_REFUSED):       T(S.CANCELED,        reason=R.PURCHASE_REFUSED, effect=E.MONEY_BACK),
    (S.PURCHASING,      G.ORDER_IN_DOUBT):     T(S.PURCHASING),
    (S.PURCHASING,      G.BUYING_PAUSED):      T(S.PURCHASING,      reason=R.BUYING_PAUSED),
    (S.PURCHASING,      G.NO_ANSWER):          T(S.PURCHASING,      reason=KEPT),
    (S.PURCHASING,      G.TOO_OLD):            T(S.NEEDS_ATTENTION, reason=R.PURCHASE_TOO_OLD),
    (S.PURCHASING,      G.GIVEN_UP_UNBOUGHT):  T(S.WITHDRAWING),

    (S.AWAITING_KEYS,   G.CLAIMED):            T(S.AWAITING_KEYS,   (C.COLLECT_KEYS,)),
    (S.AWAITING_KEYS,   G.SOME_KEYS_SEALED):   T(S.AWAITING_KEYS),
    (S.AWAITING_KEYS,   G.NO_ANSWER):          T(S.AWAITING_KEYS),
    (S.AWAITING_KEYS,   G.ALL_KEYS_SEALED):    T(S.READY),
    (S.AWAITING_KEYS,   G.KEY_HELD):           T(S.NEEDS_ATTENTION, reason=R.DUPLICATE_KEY),
    (S.AWAITING_KEYS,   G.NO_MORE_KEYS):       T(S.PARTLY_CANCELED, reason=R.KEYS_MISSING, effect=E.MONEY_BACK),
    (S.AWAITING_KEYS,   G.NO_KEYS_AT_ALL):     T(S.CANCELED,        reason=R.KEYS_MISSING, effect=E.MONEY_BACK),
    (S.AWAITING_KEYS,   G.KEY_UNREADABLE):     T(S.NEEDS_ATTENTION, reason=R.KEY_UNREADABLE),
    (S.AWAITING_KEYS,   G.PURCHASE_UNKNOWN):   T(S.NEEDS_ATTENTION, reason=R.PURCHASE_UNKNOWN),
    (S.AWAITING_KEYS,   G.KEY_CORRUPTED):      T(S.NEEDS_ATTENTION, reason=R.KEY_CORRUPTED),
    (S.AWAITING_KEYS,   G.TOO_OLD):            T(S.NEEDS_ATTENTION, reason=R.KEYS_TOO_LATE),
    (S.AWAITING_KEYS,   G.GIVEN_UP_BOUGHT):    T(S.REVOKING),

    (S.READY,           G.ALL_KEYS_OPENED):    T(S.DELIVERED),
    (S.READY,           G.KEY_CORRUPTED):      T(S.NEEDS_ATTENTION, reason=R.KEY_CORRUPTED),
    (S.READY,           G.GIVEN_UP_BOUGHT):    T(S.REVOKING),

    # Its owner wants to see it once more, and it is lost.
    (S.DELIVERED,       G.KEY_CORRUPTED):      T(S.NEEDS_ATTENTION, reason=R.KEY_CORRUPTED),

    # Given up: first it is made sure that nothing more is bought, then that nobody opens what was, then it goes back.
    (S.WITHDRAWING,     G.CLAIMED):            T(S.WITHDRAWING,     (C.WITHDRAW_ORDER,)),
    (S.WITHDRAWING,     G.ORDER_WITHDRAWN):    T(S.CANCELED,        effect=E.MONEY_BACK),
    (S.WITHDRAWING,     G.ORDER_REFUSED):      T(S.CANCELED,        effect=E.MONEY_BACK),
    (S.WITHDRAWING,     G.OFFER_REFUSED):      T(S.CANCELED,        effect=E.MONEY_BACK),
    (S.WITHDRAWING,     G.SALE_REFUSED):       T(S.CANCELED,        effect=E.MONEY_BACK),
    (S.WITHDRAWING,     G.ORDER_PLACED):       T(S.REVOKING),
    (S.WITHDRAWING,     G.ORDER_IN_DOUBT):     T(S.WITHDRAWING),
    (S.WITHDRAWING,     G.NO_ANSWER):          T(S.WITHDRAWING),
    (S.WITHDRAWING,     G.TOO_OLD):            T(S.NEEDS_ATTENTION, reason=R.GIVE_UP_TOO_OLD),

    (S.REVOKING,        G.CLAIMED):            T(S.REVOKING,        (C.REVOKE_KEYS,)),
    (S.REVOKING,        G.KEYS_ARRIVED):       T(S.REVOKING),
    (S.REVOKING,        G.KEYS_REVOKED):       T(S.RETURNING,       effect=E.MONEY_BACK),
    (S.REVOKING,        G.BOUGHT_ELSEWHERE):   T(S.SHREDDING,       effect=E.MONEY_BACK),
    (S.REVOKING,        G.KEYS_PARTLY_OPENED): T(S.NEEDS_ATTENTION, reason=R.RETURN_REFUSED, effect=E.MONEY_BACK),
    (S.REVOKING,        G.ALL_KEYS_OPENED):    T(S.DELIVERED),
    (S.REVOKING,        G.NO_ANSWER):          T(S.REVOKING),
    (S.REVOKING,        G.TOO_OLD):            T(S.NEEDS_ATTENTION, reason=R.GIVE_UP_TOO_OLD),

    (S.RETURNING,       G.CLAIMED):            T(S.RETURNING,       (C.RETURN_KEYS,)),
    (S.RETURNING,       G.RETURN_UNDER_WAY):   T(S.RETURNING),
    (S.RETURNING,       G.KEYS_ARRIVED):       T(S.REVOKING),
    (S.RETURNING,       G.KEYS_RETURNED):      T(S.SHREDDING),
    (S.RETURNING,       G.RETURN_REFUSED):     T(S.NEEDS_ATTENTION, reason=R.RETURN_REFUSED),
    (S.RETURNING,       G.NO_ANSWER):          T(S.RETURNING),
    (S.RETURNING,       G.TOO_OLD):            T(S.NEEDS_ATTENTION, reason=R.RETURN_TOO_LATE),

    (S.SHREDDING,       G.CLAIMED):            T(S.SHREDDING,       (C.SHRED_KEYS,)),
    (S.SHREDDING,       G.KEYS_ARRIVED):       T(S.REVOKING),
    (S.SHREDDING,       G.KEYS_SHREDDED):      T(S.CANCELED),
    (S.SHREDDING,       G.NO_ANSWER):          T(S.SHREDDING),
    (S.SHREDDING,       G.TOO_OLD):            T(S.NEEDS_ATTENTION, reason=R.GIVE_UP_TOO_OLD),

    (S.NEEDS_ATTENTION, G.RETRY_PLANNING):     T(S.PENDING),
    (S.NEEDS_ATTENTION, G.RETRY_PLACING):      T(S.PURCHASING),
    (S.NEEDS_ATTENTION, G.RETRY_ANEW):         T(S.SUPERSEDED,      reason=R.PURCHASE_REFUSED, effect=E.NEXT_ATTEMPT),
    (S.NEEDS_ATTENTION, G.RETRY_COLLECTING):   T(S.AWAITING_KEYS),
    (S.NEEDS_ATTENTION, G.DELIVERED_BY_HAND):  T(S.READY),
    (S.NEEDS_ATTENTION, G.KEYS_MENDED):        T(S.READY),
    (S.NEEDS_ATTENTION, G.GIVEN_UP_UNBOUGHT):  T(S.WITHDRAWING),
    (S.NEEDS_ATTENTION, G.GIVEN_UP_BOUGHT):    T(S.REVOKING),
    (S.NEEDS_ATTENTION, G.REST_GIVEN_UP):      T(S.PARTLY_CANCELED, effect=E.MONEY_BACK),
    (S.NEEDS_ATTENTION, G.LOSS_ACCEPTED):      T(S.CANCELED),

    # What came of it can be opened, until the money for that goes back too.
    (S.PARTLY_CANCELED, G.KEY_CORRUPTED):      T(S.NEEDS_ATTENTION, reason=R.KEY_CORRUPTED),
    (S.PARTLY_CANCELED, G.GIVEN_UP_BOUGHT):    T(S.REVOKING),

    (S.CANCELED,        G.MONEY_RETURNED):     T(S.REFUNDED),
}
# fmt: on

_ENDS = frozenset({S.DELIVERED, S.PARTLY_CANCELED, S.CANCELED, S.REFUNDED, S.SUPERSEDED})
_GIVING_UP = frozenset({S.WITHDRAWING, S.REVOKING, S.RETURNING, S.SHREDDING})
_BOUGHT = frozenset({S.AWAITING_KEYS, S.READY}) | _GIVING_UP | _ENDS | {S.NEEDS_ATTENTION}
# Where a purchase may be that the supplier refused: a person may have delivered its keys meanwhile.
_UNBOUGHT = frozenset({S.NEEDS_ATTENTION, S.READY, S.REVOKING, S.SHREDDING}) | _ENDS

# What is told again, or later than another worker's answer, or of what somebody has given up meanwhile.
_KNOWN_BY: Mapping[Signal, frozenset[State]] = {
    G.PLAN_MADE: _BOUGHT | {S.PURCHASING},
    G.PLAN_COVERED: _BOUGHT | {S.PURCHASING},
    G.PLAN_POSTPONED: _BOUGHT | {S.PURCHASING},
    G.ORDER_PLACED: _BOUGHT - {S.WITHDRAWING},
    G.ORDER_REFUSED: _UNBOUGHT,
    G.OFFER_REFUSED: _UNBOUGHT,
    G.SALE_REFUSED: _UNBOUGHT,
    G.ORDER_IN_DOUBT: _BOUGHT - {S.WITHDRAWING},
    G.BUYING_PAUSED: _BOUGHT,
    G.NO_ANSWER: frozenset({S.READY, S.NEEDS_ATTENTION}) | _ENDS,
    G.SOME_KEYS_SEALED: frozenset({S.READY, S.NEEDS_ATTENTION}) | _GIVING_UP | _ENDS,
    G.ALL_KEYS_SEALED: frozenset({S.READY, S.NEEDS_ATTENTION}) | _GIVING_UP | _ENDS,
    G.KEY_HELD: frozenset({S.READY, S.NEEDS_ATTENTION}) | _GIVING_UP | _ENDS,
    # Told of an earlier moment than the answer that brought the last key.
    G.NO_MORE_KEYS: frozenset({S.READY, S.NEEDS_ATTENTION}) | _GIVING_UP | _ENDS,
    G.NO_KEYS_AT_ALL: frozenset({S.READY, S.NEEDS_ATTENTION}) | _GIVING_UP | _ENDS,
    G.KEY_UNREADABLE: frozenset({S.READY, S.NEEDS_ATTENTION}) | _GIVING_UP | _ENDS,
    G.PURCHASE_UNKNOWN: frozenset({S.READY, S.NEEDS_ATTENTION}) | _GIVING_UP | _ENDS,
    G.KEY_CORRUPTED: frozenset({S.NEEDS_ATTENTION, S.CANCELED, S.REFUNDED}) | _GIVING_UP,
    G.TOO_OLD: frozenset({S.NEEDS_ATTENTION}),
    G.ALL_KEYS_OPENED: frozenset({S.NEEDS_ATTENTION, S.RETURNING, S.SHREDDING}) | _ENDS,
    # Whoever settles a purchase may hear of it from two sides.
    G.ORDER_WITHDRAWN: frozenset({S.NEEDS_ATTENTION, S.REVOKING, S.RETURNING, S.SHREDDING}) | _ENDS,
    G.KEYS_REVOKED: frozenset({S.RETURNING, S.SHREDDING, S.NEEDS_ATTENTION}) | _ENDS,
    G.BOUGHT_ELSEWHERE: frozenset({S.RETURNING, S.SHREDDING, S.NEEDS_ATTENTION}) | _ENDS,
    G.KEYS_PARTLY_OPENED: frozenset({S.RETURNING, S.SHREDDING, S.NEEDS_ATTENTION}) | _ENDS,
    # A key that comes when all is over is written down as revoked, and reconciliation tells of it.
    G.KEYS_ARRIVED: frozenset({S.NEEDS_ATTENTION}) | _ENDS,
    G.RETURN_UNDER_WAY: frozenset({S.REVOKING, S.SHREDDING, S.NEEDS_ATTENTION}) | _ENDS,
    G.KEYS_RETURNED: frozenset({S.REVOKING, S.SHREDDING, S.NEEDS_ATTENTION}) | _ENDS,
    G.RETURN_REFUSED: frozenset({S.REVOKING, S.SHREDDING, S.NEEDS_ATTENTION}) | _ENDS,
    G.KEYS_SHREDDED: frozenset({S.REVOKING, S.RETURNING, S.NEEDS_ATTENTION}) | _ENDS,
    G.GIVEN_UP_UNBOUGHT: _GIVING_UP | _ENDS,
    G.GIVEN_UP_BOUGHT: _GIVING_UP | (_ENDS - {S.PARTLY_CANCELED}),
    G.REST_GIVEN_UP: _GIVING_UP | _ENDS,
    G.LOSS_ACCEPTED: _GIVING_UP | _ENDS,
    # It has yet to end; then it is looked at again.
    G.MONEY_RETURNED: frozenset(S) - {S.CANCELED, S.AWAITING_PAYMENT},
    G.RETRY_PLANNING: frozenset({S.PENDING, S.PURCHASING}),
    G.RETRY_PLACING: frozenset({S.PENDING, S.PURCHASING, S.AWAITING_KEYS}),
    G.RETRY_ANEW: frozenset({S.SUPERSEDED}),
    G.RETRY_COLLECTING: frozenset({S.AWAITING_KEYS, S.READY}),
    G.DELIVERED_BY_HAND: frozenset({S.READY, S.DELIVERED}),
    G.KEYS_MENDED: frozenset({S.READY, S.DELIVERED}),
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
