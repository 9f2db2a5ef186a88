"""Tells in plain words where an order is: the only place where a state becomes a sentence for its customer."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.domain.order import Line, Order, State

S = State


@dataclass(frozen=True, slots=True)
class Telling:
    """What the customer reads about one state. `tone` picks the colour: active, ready, attention or quiet."""

    label: str
    tone: str
    headline: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Step:
    """One of four steps. `state` is done, current, waiting, attention or stopped; `told` says it in words."""

    name: str
    label: str
    state: str
    told: str


@dataclass(frozen=True, slots=True)
class Progress:
    """An order's progress; `final` once nothing can change any more."""

    label: str
    tone: str
    headline: str
    sentence: str
    steps: tuple[Step, ...]
    final: bool


TELLINGS: Mapping[State, Telling] = {
    S.AWAITING_PAYMENT: Telling(
        "Awaiting payment",
        "active",
        "Waiting for your payment",
        "Nothing is bought before the whole amount has arrived. This page goes on by itself as soon as it has.",
    ),
    S.PENDING: Telling(
        "Paid",
        "active",
        "Your payment is here",
        "We are about to buy your keys. You can leave this page: we also send you an e-mail.",
    ),
    S.PURCHASING: Telling(
        "Buying",
        "active",
        "Buying your keys",
        "We are ordering from our supplier. If it is slow or down, we keep trying; nothing is bought twice.",
    ),
    S.AWAITING_KEYS: Telling(
        "On the way",
        "active",
        "Bought, waiting for your keys",
        "The supplier has taken the order. Each key is locked for you the moment it arrives, and appears below.",
    ),
    S.READY: Telling(
        "Ready",
        "ready",
        "Ready for you",
        "Everything has arrived and is locked. Open a key when you need it: it is unlocked on this device only.",
    ),
    S.DELIVERED: Telling(
        "Opened",
        "quiet",
        "All done",
        "You have opened every key of this order. You can show them again here.",
    ),
    S.NEEDS_ATTENTION: Telling(
        "Being looked at",
        "attention",
        "A person is looking at this",
        "Something did not go as usual and we know. You need not do anything; keys that are here can be opened.",
    ),
    S.PARTLY_CANCELED: Telling(
        "Partly canceled",
        "attention",
        "A part will not come",
        "Some keys could not be delivered; the shop settles the money with you. The others can be opened below.",
    ),
    S.CANCELED: Telling(
        "Canceled",
        "quiet",
        "This order was canceled",
        "No keys will come. If you have paid, the shop settles the money with you.",
    ),
    S.REFUNDED: Telling(
        "Refunded",
        "quiet",
        "Your money is on its way back",
        "This order was refunded, and its keys can no longer be opened.",
    ),
}

#: Reasons on which the customer can act, or at least wants to know more than the state says.
REASON_SENTENCES: Mapping[str, str] = {
    "PAYMENT_MISMATCH": (
        "The payment that reached us differs from the order's total, so nothing was bought. The shop has been told and "
        "will settle it with you."
    ),
    "BUYING_PAUSED": (
        "Your order waits: we cannot order from our supplier at the moment. It goes on by itself as soon as we can, in "
        "the order in which orders came. Nothing was bought yet, and you need not do anything."
    ),
    "WAITING_FOR_STOCK": (
        "Your keys are sold out at our supplier at the moment. We look again all the time and buy them as soon as they "
        "are there; you need not do anything."
    ),
}

FINAL = frozenset({S.DELIVERED, S.CANCELED, S.REFUNDED})
_ENDED = frozenset({S.CANCELED, S.REFUNDED, S.PARTLY_CANCELED})
_BOUGHT = frozenset({S.AWAITING_KEYS, S.READY, S.DELIVERED})
_COMPLETE = frozenset({S.READY, S.DELIVERED})
_TOLD = {
    "done": "done",
    "current": "happening now",
    "waiting": "not yet",
    "attention": "a person is looking at it",
    "stopped": "did not happen",
}


def tell(order: Order) -> Progress:
    """Return what the customer reads about the order."""
    telling = TELLINGS[order.state]
    sentence = telling.sentence
    if order.state in {S.NEEDS_ATTENTION, S.PENDING, S.PURCHASING}:
        sentence = REASON_SENTENCES.get(order.reason, sentence)
    return Progress(
        label=telling.label,
        tone=telling.tone,
        headline=telling.headline,
        sentence=sentence,
        steps=_steps(order),
        final=order.state in FINAL,
    )


def tell_line(line: Line) -> str:
    """Return the short note beside a product: how many keys, and how many of them are here."""
    noun = "key" if line.quantity == 1 else "keys"
    if len(line.keys) >= line.quantity:
        return f"{line.quantity} {noun}"
    return f"{len(line.keys)} of {line.quantity} {noun} here" if line.keys else f"{line.quantity} {noun}"


def tell_pending(line: Line) -> str:
    """Return the sentence about the keys of a line that are not here; empty when none is missing."""
    missing = line.quantity - len(line.keys)
    if missing <= 0:
        return ""
    what = "1 key" if missing == 1 else f"{missing} keys"
    match line.state:
        case S.AWAITING_PAYMENT:
            return f"{what}, bought once you have paid"
        case S.NEEDS_ATTENTION:
            return f"{what}: a person is looking at it"
        case S.CANCELED | S.PARTLY_CANCELED | S.REFUNDED:
            return f"{what} will not come"
        case S.PENDING | S.PURCHASING:
            return f"{what} being bought"
        case _:
            return f"{what} on the way"


def _steps(order: Order) -> tuple[Step, ...]:
    done = {
        "paid": order.pay_time is not None or order.state in _BOUGHT | {S.PENDING, S.PURCHASING},
        "bought": all(line.state in _BOUGHT for line in order.lines),
        "sealed": all(len(line.keys) >= line.quantity for line in order.lines),
        "ready": order.state in _COMPLETE,
    }
    labels = {"paid": "Paid", "bought": "Bought", "sealed": "Sealed", "ready": "Ready"}
    steps: list[Step] = []
    reached = True
    for name, label in labels.items():
        if reached and done[name]:
            state = "done"
        elif reached:
            reached = False
            state = _present(order.state)
        else:
            state = "stopped" if order.state in _ENDED else "waiting"
        steps.append(Step(name, label, state, _TOLD[state]))
    return tuple(steps)


def _present(state: State) -> str:
    if state is S.NEEDS_ATTENTION:
        return "attention"
    return "stopped" if state in _ENDED else "current"
