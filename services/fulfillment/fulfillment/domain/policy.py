"""The rules that need data: payments against totals, ages, and when to look again. Time is an argument."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from fulfillment.domain.machine import Signal
from fulfillment.domain.model import Amount, Purchase, State

# Past these a person looks. Placing settles within the supplier's bounds, some minutes; keys may take the supplier a
# day, and a pre-order months.
MOST_AGE: Mapping[State, timedelta] = {
    State.PENDING: timedelta(days=2),
    State.PURCHASING: timedelta(hours=6),
    State.AWAITING_KEYS: timedelta(days=400),
}
# A parked purchase waits as one that is pending does: nothing of it was sent.
MOST_PARKED = MOST_AGE[State.PENDING]

_FIRST_WAIT = timedelta(seconds=0.3)
_LONGEST_WAIT = timedelta(minutes=5)
_GROWTH = 1.7
_MOST_STEPS = 40


class PaymentVerdict(Enum):
    """What the payments of an order come to."""

    SHORT = auto()
    PAID = auto()
    MISMATCH = auto()


@dataclass(frozen=True, slots=True)
class Paid:
    """A verdict, and what was paid: in the order's currency, or in another where nothing came in that one."""

    verdict: PaymentVerdict
    amount: Amount | None
    reaches_total: bool


def judge_payments(total: Amount, payments: Sequence[Amount]) -> Paid:
    """Compare payments with the total: below it more is awaited; above it, or in another currency, a human decides."""
    if not payments:
        return Paid(PaymentVerdict.SHORT, None, reaches_total=False)
    currencies = {payment.currency_code for payment in payments}
    currency = total.currency_code if total.currency_code in currencies else min(currencies)
    amount = Amount(currency, sum(payment.minor_units for payment in payments if payment.currency_code == currency))
    reaches_total = currency == total.currency_code and amount.minor_units >= total.minor_units
    if currencies != {total.currency_code} or amount.minor_units > total.minor_units:
        return Paid(PaymentVerdict.MISMATCH, amount, reaches_total)
    return Paid(PaymentVerdict.PAID if reaches_total else PaymentVerdict.SHORT, amount, reaches_total)


def signal_on_claim(purchase: Purchase, now: datetime) -> Signal:
    """Return what claiming a purchase means: time to act, or too late to go on without a human."""
    since, limit = purchase.state_time, MOST_AGE.get(purchase.state)
    if purchase.is_parked:
        since, limit = purchase.park_time or since, MOST_PARKED
    return Signal.TOO_OLD if limit is not None and now - since > limit else Signal.CLAIMED


def wait_after(tries: int, *, at_least: timedelta | None = None, jitter: float) -> timedelta:
    """Return how long to wait before asking again: growing, bounded, spread by a quarter with `jitter` in [0, 1)."""
    grown = _FIRST_WAIT * _GROWTH ** min(tries, _MOST_STEPS)
    wait = min(grown, _LONGEST_WAIT) * (0.75 + jitter / 2)
    return max(wait, at_least) if at_least is not None else wait
