"""What reconciliation may find, and what mends it. What each kind means is told in docs/reconciliation.md."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

OUR_PREFIX = "kf1-"
"""How every reference of ours at the supplier begins."""

LONGEST_RANGE = timedelta(days=31)


class Fix(StrEnum):
    """What mends a difference."""

    WAIT = "WAIT"
    RETRY = "RETRY"
    REFUND = "REFUND"
    RETURN = "RETURN"
    RECORD_TOP_UP = "RECORD_TOP_UP"
    RESEND_EMAIL = "RESEND_EMAIL"
    RESUBMIT = "RESUBMIT"
    INVESTIGATE = "INVESTIGATE"


class Kind(StrEnum):
    """A kind of difference. Never renamed: reports live on."""

    PAID_WITHOUT_ORDER = "PAID_WITHOUT_ORDER"
    PAID_IN_PART = "PAID_IN_PART"
    PAID_TOO_MUCH = "PAID_TOO_MUCH"
    PAID_IN_OTHER_CURRENCY = "PAID_IN_OTHER_CURRENCY"
    PAID_NOT_DELIVERED = "PAID_NOT_DELIVERED"
    PURCHASE_OVERDUE = "PURCHASE_OVERDUE"
    DELIVERED_NOT_PAID = "DELIVERED_NOT_PAID"
    BOUGHT_NOT_PAID = "BOUGHT_NOT_PAID"
    REFUND_WITHOUT_PAYMENT = "REFUND_WITHOUT_PAYMENT"
    REFUND_EXCEEDS_PAYMENT = "REFUND_EXCEEDS_PAYMENT"
    REFUND_REQUEST_UNANSWERED = "REFUND_REQUEST_UNANSWERED"
    REFUNDED_BUT_OPENABLE = "REFUNDED_BUT_OPENABLE"
    MAIL_NEVER_SENT = "MAIL_NEVER_SENT"
    PURCHASE_UNKNOWN_TO_SUPPLIER_SIDE = "PURCHASE_UNKNOWN_TO_SUPPLIER_SIDE"
    PURCHASE_UNKNOWN_TO_US = "PURCHASE_UNKNOWN_TO_US"
    PURCHASE_STATE_DISAGREES = "PURCHASE_STATE_DISAGREES"
    QUANTITY_DIFFERS = "QUANTITY_DIFFERS"
    SUPPLIER_ORDER_DIFFERS = "SUPPLIER_ORDER_DIFFERS"
    PRICE_ABOVE_LIMIT = "PRICE_ABOVE_LIMIT"
    CHARGE_DIFFERS = "CHARGE_DIFFERS"
    CHUNK_BOUGHT_TWICE = "CHUNK_BOUGHT_TWICE"
    BOUGHT_TWICE = "BOUGHT_TWICE"
    SUPPLIER_ORDER_MISSING = "SUPPLIER_ORDER_MISSING"
    SUPPLIER_ORDER_UNKNOWN = "SUPPLIER_ORDER_UNKNOWN"
    SUPPLIER_ORDER_FOREIGN = "SUPPLIER_ORDER_FOREIGN"
    KEYS_FEWER_THAN_BOUGHT = "KEYS_FEWER_THAN_BOUGHT"
    KEYS_MORE_THAN_BOUGHT = "KEYS_MORE_THAN_BOUGHT"
    KEY_MISSING_AT_VAULT = "KEY_MISSING_AT_VAULT"
    KEY_UNKNOWN_TO_ORDER = "KEY_UNKNOWN_TO_ORDER"
    KEY_NEVER_SEALED = "KEY_NEVER_SEALED"
    KEY_OF_ANOTHER_ORDER = "KEY_OF_ANOTHER_ORDER"
    KEY_STATE_DISAGREES = "KEY_STATE_DISAGREES"
    OPENED_NOT_NOTED = "OPENED_NOT_NOTED"
    NOTED_NOT_OPENED = "NOTED_NOT_OPENED"
    KEY_NEVER_OPENED = "KEY_NEVER_OPENED"
    CANCELED_NOT_RETURNED = "CANCELED_NOT_RETURNED"
    RETURN_REFUSED = "RETURN_REFUSED"
    RETURN_NOT_PAID_BACK = "RETURN_NOT_PAID_BACK"
    BALANCE_UNEXPLAINED = "BALANCE_UNEXPLAINED"


FIXES: Mapping[Kind, Fix] = {
    Kind.PAID_WITHOUT_ORDER: Fix.RESUBMIT,
    Kind.PAID_IN_PART: Fix.REFUND,
    Kind.PAID_TOO_MUCH: Fix.REFUND,
    Kind.PAID_IN_OTHER_CURRENCY: Fix.REFUND,
    Kind.PAID_NOT_DELIVERED: Fix.RESUBMIT,
    Kind.PURCHASE_OVERDUE: Fix.RETRY,
    Kind.DELIVERED_NOT_PAID: Fix.INVESTIGATE,
    Kind.BOUGHT_NOT_PAID: Fix.RETURN,
    Kind.REFUND_WITHOUT_PAYMENT: Fix.RESUBMIT,
    Kind.REFUND_EXCEEDS_PAYMENT: Fix.INVESTIGATE,
    Kind.REFUND_REQUEST_UNANSWERED: Fix.REFUND,
    Kind.REFUNDED_BUT_OPENABLE: Fix.RETRY,
    Kind.MAIL_NEVER_SENT: Fix.RESEND_EMAIL,
    Kind.PURCHASE_UNKNOWN_TO_SUPPLIER_SIDE: Fix.INVESTIGATE,
    Kind.PURCHASE_UNKNOWN_TO_US: Fix.INVESTIGATE,
    Kind.PURCHASE_STATE_DISAGREES: Fix.RETRY,
    Kind.QUANTITY_DIFFERS: Fix.INVESTIGATE,
    Kind.SUPPLIER_ORDER_DIFFERS: Fix.INVESTIGATE,
    Kind.PRICE_ABOVE_LIMIT: Fix.INVESTIGATE,
    Kind.CHARGE_DIFFERS: Fix.INVESTIGATE,
    Kind.CHUNK_BOUGHT_TWICE: Fix.RETURN,
    Kind.BOUGHT_TWICE: Fix.RETURN,
    Kind.SUPPLIER_ORDER_MISSING: Fix.INVESTIGATE,
    Kind.SUPPLIER_ORDER_UNKNOWN: Fix.INVESTIGATE,
    Kind.SUPPLIER_ORDER_FOREIGN: Fix.INVESTIGATE,
    Kind.KEYS_FEWER_THAN_BOUGHT: Fix.INVESTIGATE,
    Kind.KEYS_MORE_THAN_BOUGHT: Fix.INVESTIGATE,
    Kind.KEY_MISSING_AT_VAULT: Fix.INVESTIGATE,
    Kind.KEY_UNKNOWN_TO_ORDER: Fix.RETRY,
    Kind.KEY_NEVER_SEALED: Fix.RETRY,
    Kind.KEY_OF_ANOTHER_ORDER: Fix.INVESTIGATE,
    Kind.KEY_STATE_DISAGREES: Fix.INVESTIGATE,
    Kind.OPENED_NOT_NOTED: Fix.WAIT,
    Kind.NOTED_NOT_OPENED: Fix.INVESTIGATE,
    Kind.KEY_NEVER_OPENED: Fix.RESEND_EMAIL,
    Kind.CANCELED_NOT_RETURNED: Fix.RETURN,
    Kind.RETURN_REFUSED: Fix.INVESTIGATE,
    Kind.RETURN_NOT_PAID_BACK: Fix.INVESTIGATE,
    Kind.BALANCE_UNEXPLAINED: Fix.RECORD_TOP_UP,
}


class Ask(StrEnum):
    """Whom to ask again about a candidate before it is called a difference."""

    PURCHASE = "PURCHASE"
    SUPPLIER_ORDER = "SUPPLIER_ORDER"
    KEY = "KEY"


_PURCHASE, _BOTH, _KEY = frozenset({Ask.PURCHASE}), frozenset({Ask.PURCHASE, Ask.SUPPLIER_ORDER}), frozenset({Ask.KEY})
ASKS: Mapping[Kind, frozenset[Ask]] = {
    Kind.PURCHASE_UNKNOWN_TO_SUPPLIER_SIDE: _PURCHASE,
    Kind.PURCHASE_UNKNOWN_TO_US: _PURCHASE,
    Kind.PURCHASE_STATE_DISAGREES: _PURCHASE,
    Kind.QUANTITY_DIFFERS: _PURCHASE,
    Kind.SUPPLIER_ORDER_DIFFERS: _PURCHASE,
    Kind.PRICE_ABOVE_LIMIT: _PURCHASE,
    Kind.CHARGE_DIFFERS: _BOTH,
    Kind.BOUGHT_TWICE: _BOTH,
    Kind.SUPPLIER_ORDER_MISSING: _BOTH,
    Kind.SUPPLIER_ORDER_UNKNOWN: _BOTH,
    Kind.SUPPLIER_ORDER_FOREIGN: frozenset({Ask.SUPPLIER_ORDER}),
    Kind.KEY_MISSING_AT_VAULT: _KEY,
    Kind.KEY_UNKNOWN_TO_ORDER: _KEY,
    Kind.KEY_NEVER_SEALED: _KEY,
    Kind.KEY_OF_ANOTHER_ORDER: _KEY,
    Kind.KEY_STATE_DISAGREES: _KEY,
    Kind.OPENED_NOT_NOTED: _KEY,
    Kind.NOTED_NOT_OPENED: _KEY,
    Kind.KEY_NEVER_OPENED: _KEY,
    Kind.CANCELED_NOT_RETURNED: _BOTH,
    Kind.RETURN_REFUSED: _PURCHASE,
    Kind.RETURN_NOT_PAID_BACK: _PURCHASE,
}
"""The rest is read from our own rows only, and read again without asking anybody."""


@dataclass(frozen=True, slots=True)
class Limits:
    """For how long what is on its way is no difference.

    A difference by age happens when its limit passes: a report finds those whose limit passed within its range, so that
    hourly reports find each of them without looking at everything every hour.
    """

    grace: timedelta = timedelta(minutes=10)
    """What is younger may still be told to the other side: events are repeated and doubts settle within minutes."""
    unmatched: timedelta = timedelta(hours=1)
    """A payment without its order, a refund without its payment, a line that nothing was planned for."""
    in_part: timedelta = timedelta(days=1)
    pending: timedelta = timedelta(days=2, hours=1)
    purchasing: timedelta = timedelta(hours=7)
    awaiting_keys: timedelta = timedelta(days=401)
    taking_back: timedelta = timedelta(days=1)
    """From a refund or a cancellation until keys are revoked and their return is asked for."""
    mail: timedelta = timedelta(hours=1)
    unanswered: timedelta = timedelta(days=2)
    paying_back: timedelta = timedelta(days=7)
    """From the purchase until the supplier has paid returned keys back."""
    never_opened: timedelta = timedelta(days=30)
    skew: timedelta = timedelta(seconds=60)
    """How far the supplier's clock may be from ours when an order is weighed against a reading of the balance."""


@dataclass(frozen=True, slots=True)
class Range:
    """From `start` to before `end`."""

    start: datetime
    end: datetime

    def shifted(self, age: timedelta) -> "Range":
        """Return the range in which that began which reaches this age within the range."""
        return Range(self.start - age, self.end - age)

    def until(self, end: datetime) -> "Range":
        """Return what of the range lies before `end`; empty where nothing does."""
        return Range(self.start, max(self.start, min(self.end, end)))


def merged(ranges: Iterable[Range]) -> Sequence[Range]:
    """Return the same time in as few ranges as possible, the earliest first."""
    found: list[Range] = []
    for each in sorted((each for each in ranges if each.start < each.end), key=lambda each: each.start):
        if found and each.start <= found[-1].end:
            found[-1] = Range(found[-1].start, max(found[-1].end, each.end))
        else:
            found.append(each)
    return found


@dataclass(frozen=True, slots=True)
class Charge:
    """A supplier order that may be in the told balance, or not yet: it was placed when the balance was read."""

    supplier_order_id: str
    create_time: datetime
    minor_units: int


@dataclass(frozen=True, slots=True)
class Statement:
    """How the balance came about, in cents. `opening` is what the books held at the end of the report before."""

    opening: int | None
    top_ups: int
    charges: int
    refunds: int
    closing: int
    unexplained: int
    left_out: Sequence[str] = field(default=())
    """Supplier orders placed after the balance was read: the next statement has them."""

    @property
    def books(self) -> int:
        """Return what the account must hold by all that is known; what is not explained stays outside until it is."""
        return self.closing - self.unexplained


def close_account(
    *, opening: int | None, top_ups: int, charges: int, refunds: int, unsure: Sequence[Charge], told: int, at: datetime
) -> Statement:
    """Explain the told balance. Of orders placed while it was read, the cut that explains it to the cent holds.

    Without one the clocks are believed. `charges` are those that are surely in it.
    """
    if opening is None:
        late = tuple(charge.supplier_order_id for charge in unsure if charge.create_time >= at)
        return Statement(None, 0, 0, 0, told, 0, late)
    ordered = sorted(unsure, key=lambda charge: (charge.create_time, charge.supplier_order_id))
    believed = sum(charge.create_time < at for charge in ordered)
    cuts = sorted(range(len(ordered) + 1), key=lambda cut: abs(cut - believed))

    def left(cut: int) -> int:
        in_it = charges + sum(charge.minor_units for charge in ordered[:cut])
        return told - (opening + top_ups - in_it + refunds)

    chosen = next((cut for cut in cuts if left(cut) == 0), believed)
    return Statement(
        opening=opening,
        top_ups=top_ups,
        charges=charges + sum(charge.minor_units for charge in ordered[:chosen]),
        refunds=refunds,
        closing=told,
        unexplained=left(chosen),
        left_out=tuple(charge.supplier_order_id for charge in ordered[chosen:]),
    )


def known_kind(name: str) -> Kind | str:
    """Return the kind of this name, or the name where only another version of this service knows such a kind."""
    try:
        return Kind(name)
    except ValueError:
        return name


def fix_of(kind: Kind | str, found: str) -> Fix:
    """Return what mends a difference: a person, where this version does not know its kind.

    Money that is missing from the balance is no top-up that was forgotten.
    """
    if kind is Kind.BALANCE_UNEXPLAINED and found.startswith("-"):
        return Fix.INVESTIGATE
    return FIXES[kind] if isinstance(kind, Kind) else Fix.INVESTIGATE
