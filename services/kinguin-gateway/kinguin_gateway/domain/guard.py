"""The purchase guard: what an answer means, what an empty search proves, and what may therefore be done next.

Nobody but the supplier knows whether an order was taken, and the supplier does not promise to refuse a reference it has
seen. So there is one rule: a further attempt needs a proof that no earlier one was taken. The proof is in times:

    commit of the attempt      send_deadline                 absence can be proved from here on
            |-- bytes may be sent --|-- commit bound --|-- search lag bound --|
                                    the supplier may      its search may not
                                    still take it         show it yet

Everything here is pure. `Purchases` in ports.py keeps the row that makes the times hold for every replica.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum, auto

from kinguin_gateway.domain.purchase import Intent, Problem, PurchaseState, SupplierOrder


@dataclass(frozen=True, slots=True)
class Bounds:
    """What we assume of the supplier (ADR 1).

    It takes an order at most `commit` after we gave up on it, and its search shows an order at most `search_lag` after
    it took it.
    """

    commit: timedelta
    search_lag: timedelta

    @property
    def total(self) -> timedelta:
        """How long after the last moment of sending an empty search proves nothing."""
        return self.commit + self.search_lag


@dataclass(frozen=True, slots=True)
class Taken:
    """The supplier answered with an order."""

    order: SupplierOrder


@dataclass(frozen=True, slots=True)
class Rejected:
    """The supplier answered with a failure that could be read."""

    status: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The supplier answered, and the answer makes no sense."""

    why: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request went out, in part at least, and no answer came."""

    why: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not one byte of the order left us: the supplier cannot have taken it."""

    why: str


Reply = Taken | Rejected | Unreadable | NoAnswer | NotSent


class Outcome(Enum):
    """What one attempt came to."""

    PLACED = auto()
    REFUSED = auto()
    IN_DOUBT = auto()
    NOT_SENT = auto()


class AnswerKind(StrEnum):
    """Every answer that placing an order may get. Where the supplier has a word for it (K63), it is the supplier's."""

    ORDER = "an order that is ours"
    STRANGE_ORDER = "an order that is not what we asked for"
    NOT_SENT = "not sent"
    NO_ANSWER = "no answer"
    UNREADABLE = "unreadable"
    SERVER_FAULT = "5xx"
    THROTTLED = "429"
    REFERENCE_USED = "ConstraintViolation: already used"
    CONSTRAINT_VIOLATION = "ConstraintViolation"
    AUTHORIZATION = "Authorization"
    INSUFFICIENT_BALANCE = "InsufficientBalance"
    PREORDER = "Preorder"
    PRODUCT_UNAVAILABLE = "ProductUnavailable"
    ERROR = "Error"
    HTTP_CLIENT = "HttpClient"
    HTTP = "Http"
    ORDER_FAILED = "OrderFailed"
    ORDER_NOT_FOUND = "OrderNotFound"
    RESOURCE_LOCK = "ResourceLock"
    ORDER_NOT_SUPPORTED = "OrderNotSupported"
    NO_KEYS_TO_RETURN = "NoKeysToReturn"
    OTHER = "anything else"


#: What each answer means (K64). Only a clear no is REFUSED; whatever is not clear is IN_DOUBT.
# fmt: off
OUTCOMES: Mapping[AnswerKind, Outcome] = {
    AnswerKind.ORDER:                Outcome.PLACED,
    AnswerKind.NOT_SENT:             Outcome.NOT_SENT,

    AnswerKind.CONSTRAINT_VIOLATION: Outcome.REFUSED,
    AnswerKind.AUTHORIZATION:        Outcome.REFUSED,
    AnswerKind.INSUFFICIENT_BALANCE: Outcome.REFUSED,
    AnswerKind.PREORDER:             Outcome.REFUSED,
    AnswerKind.PRODUCT_UNAVAILABLE:  Outcome.REFUSED,

    AnswerKind.STRANGE_ORDER:        Outcome.IN_DOUBT,
    AnswerKind.NO_ANSWER:            Outcome.IN_DOUBT,
    AnswerKind.UNREADABLE:           Outcome.IN_DOUBT,
    AnswerKind.SERVER_FAULT:         Outcome.IN_DOUBT,
    AnswerKind.THROTTLED:            Outcome.IN_DOUBT,
    AnswerKind.REFERENCE_USED:       Outcome.IN_DOUBT,
    AnswerKind.ERROR:                Outcome.IN_DOUBT,
    AnswerKind.HTTP_CLIENT:          Outcome.IN_DOUBT,
    AnswerKind.HTTP:                 Outcome.IN_DOUBT,
    AnswerKind.ORDER_FAILED:         Outcome.IN_DOUBT,
    AnswerKind.ORDER_NOT_FOUND:      Outcome.IN_DOUBT,
    AnswerKind.RESOURCE_LOCK:        Outcome.IN_DOUBT,
    AnswerKind.ORDER_NOT_SUPPORTED:  Outcome.IN_DOUBT,
    AnswerKind.NO_KEYS_TO_RETURN:    Outcome.IN_DOUBT,
    AnswerKind.OTHER:                Outcome.IN_DOUBT,
}
# fmt: on

_SUPPLIER_KINDS: Mapping[str, AnswerKind] = {
    kind.value: kind
    for kind in (
        AnswerKind.CONSTRAINT_VIOLATION,
        AnswerKind.AUTHORIZATION,
        AnswerKind.INSUFFICIENT_BALANCE,
        AnswerKind.PREORDER,
        AnswerKind.PRODUCT_UNAVAILABLE,
        AnswerKind.ERROR,
        AnswerKind.HTTP_CLIENT,
        AnswerKind.HTTP,
        AnswerKind.ORDER_FAILED,
        AnswerKind.ORDER_NOT_FOUND,
        AnswerKind.RESOURCE_LOCK,
        AnswerKind.ORDER_NOT_SUPPORTED,
        AnswerKind.NO_KEYS_TO_RETURN,
    )
}

_TOO_MANY_REQUESTS = 429
_CLIENT_FAULTS = range(400, 500)
# K24: one integrator saw the violation, nobody documents its words. Whatever hints at the reference is taken as a hint.
_USED = re.compile(r"already|\bin use\b|\bused\b|unique|duplicate|external[_ ]?(order[_ ]?)?id", re.IGNORECASE)


def answer_kind(reply: Reply, intent: Intent) -> AnswerKind:
    """Name what came back from one attempt."""
    match reply:
        case Taken(order):
            is_ours = order.external_id in {"", intent.external_id} and matches(order, intent)
            return AnswerKind.ORDER if is_ours else AnswerKind.STRANGE_ORDER
        case Rejected(status, problem):
            return _rejection_kind(status, problem)
        case Unreadable():
            return AnswerKind.UNREADABLE
        case NoAnswer():
            return AnswerKind.NO_ANSWER
        case NotSent():
            return AnswerKind.NOT_SENT


def classify(reply: Reply, intent: Intent) -> Outcome:
    """Return what one attempt came to."""
    return OUTCOMES[answer_kind(reply, intent)]


def _rejection_kind(status: int, problem: Problem) -> AnswerKind:
    # A status that speaks of the way and not of the order makes even a clear word unclear.
    if status == _TOO_MANY_REQUESTS:
        return AnswerKind.THROTTLED
    if status not in _CLIENT_FAULTS:
        return AnswerKind.SERVER_FAULT
    kind = _SUPPLIER_KINDS.get(problem.kind, AnswerKind.OTHER)
    if kind is AnswerKind.CONSTRAINT_VIOLATION and _is_about_the_reference(problem):
        return AnswerKind.REFERENCE_USED
    return kind


def _is_about_the_reference(problem: Problem) -> bool:
    return _USED.search(f"{problem.detail} {problem.field}") is not None


def matches(order: SupplierOrder, intent: Intent) -> bool:
    """Tell whether an order is what we asked for. What the supplier leaves out does not speak against it.

    Without an offer the supplier may split the quantity over several lines of the product (K22).
    """
    products_match = all(line.product_id in {None, intent.product_id} for line in order.lines)
    return products_match and order.quantity in {None, intent.quantity}


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a search by our reference found.

    `start_time` is the database's clock before the search began. `complete` says that everything the supplier counts
    was seen. A search that failed is no Lookup at all.
    """

    start_time: datetime
    orders: Sequence[SupplierOrder]
    complete: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The purchase was taken: adopt this order. Further orders under the same reference were bought too much.

    `strange` ones carry our reference but are not what we asked for: a human must look.
    """

    order: SupplierOrder
    surplus: Sequence[SupplierOrder]
    strange: Sequence[SupplierOrder] = ()


@dataclass(frozen=True, slots=True)
class Absent:
    """It is proved that no attempt so far was taken."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Still in doubt. `strange` orders carry our reference but are not what we asked for: a human must look."""

    strange: Sequence[SupplierOrder] = ()


Verdict = Found | Absent | Unsettled

_NEVER = datetime.max.replace(tzinfo=UTC)


def absence_time(send_deadline: datetime, bounds: Bounds) -> datetime:
    """Return the moment after which an empty search proves that the attempt was not taken."""
    return send_deadline + bounds.total


def proves_absence(lookup: Lookup, send_deadline: datetime, bounds: Bounds) -> bool:
    """Tell whether a search proves that nothing was taken: it saw everything, found nothing, and began late enough."""
    return lookup.complete and not lookup.orders and lookup.start_time > absence_time(send_deadline, bounds)


def judge(lookup: Lookup, intent: Intent, send_deadline: datetime, bounds: Bounds, *, kept: str = "") -> Verdict:
    """Return what a search says about a purchase.

    Of several orders the one that the purchase keeps already stays its own, since keys of it may have been sealed;
    otherwise the oldest is adopted. Every other one that is what we asked for was bought too much.
    """
    ours = sorted(
        (order for order in lookup.orders if matches(order, intent)),
        key=lambda order: (
            order.supplier_order_id != kept,
            order.create_time or _NEVER,
            order.supplier_order_id,
        ),
    )
    if ours:
        strange = [order for order in lookup.orders if not matches(order, intent)]
        return Found(ours[0], surplus=ours[1:], strange=strange)
    if proves_absence(lookup, send_deadline, bounds):
        return Absent()
    return Unsettled(strange=tuple(lookup.orders))


#: Attempts that were all proved not to have been taken. What the supplier never takes is refused in the end.
MOST_ATTEMPTS = 10
NEVER_TAKEN = "never_taken"


#: Why a purchase is refused that its caller withdrew before anything of it was taken.
WITHDRAWAL = Problem("withdrawn", "it was withdrawn before anything was bought")


class Step(Enum):
    """What a request to buy, or to withdraw, does next."""

    SEND = auto()
    REFUSE = auto()
    SETTLE = auto()
    ANSWER = auto()


#: A purchase is sent only where nothing can have been taken before.
NEXT_STEP: Mapping[PurchaseState, Step] = {
    PurchaseState.INTENDED: Step.SEND,
    PurchaseState.IN_DOUBT: Step.SETTLE,
    PurchaseState.PLACED: Step.ANSWER,
    PurchaseState.REFUSED: Step.ANSWER,
}

#: The same once it was withdrawn: it is refused exactly where it would have been sent, and nothing else is different.
NEXT_STEP_WITHDRAWN: Mapping[PurchaseState, Step] = {**NEXT_STEP, PurchaseState.INTENDED: Step.REFUSE}


def next_step(state: PurchaseState, *, withdrawn: bool) -> Step:
    """Return what is done next about a purchase. `withdrawn`: somebody asked that it is never made."""
    return (NEXT_STEP_WITHDRAWN if withdrawn else NEXT_STEP)[state]


def when_not_taken(*, withdrawn: bool) -> PurchaseState:
    """Return the state of a purchase of which it is certain that nothing was taken so far."""
    step = next_step(PurchaseState.INTENDED, withdrawn=withdrawn)
    return PurchaseState.REFUSED if step is Step.REFUSE else PurchaseState.INTENDED
