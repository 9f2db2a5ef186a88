"""The rules that need data: which signal an answer is, what is too old, when to look again. Time is an argument."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from fulfillment.domain.machine import Signal
from fulfillment.domain.model import Action, Fulfillment, Key, Purchase, Reason, State

# Past these a person looks. Placing, giving up and shredding settle within minutes; the supplier may take days for the
# return of keys, as for the keys themselves.
MOST_AGE: Mapping[State, timedelta] = {
    State.PENDING: timedelta(days=2),
    State.PURCHASING: timedelta(hours=6),
    State.AWAITING_KEYS: timedelta(days=3),
    State.WITHDRAWING: timedelta(hours=6),
    State.REVOKING: timedelta(hours=6),
    State.RETURNING: timedelta(days=7),
    State.SHREDDING: timedelta(hours=6),
}
# A parked purchase waits as one that is pending does: nothing of it was sent.
MOST_PARKED = MOST_AGE[State.PENDING]
# So long a last question may take, with every crash and repeat. Nothing that was asked for longer is waited for.
LAST_ASKING = timedelta(minutes=10)
# The keys of a pre-order come when it is released, or somewhat later; where no date is told it is a matter of months.
MOST_AFTER_RELEASE = timedelta(days=14)
MOST_WITHOUT_DATE = timedelta(days=400)

_FIRST_WAIT = timedelta(seconds=0.3)
_LONGEST_WAIT = timedelta(minutes=5)
_GROWTH = 1.7
_MOST_STEPS = 40
# The supplier's side watches a pre-order too and tells; this is for what is not told.
_LONGEST_PREORDER_WAIT = timedelta(hours=6)
# Before another offer is tried: long enough for a stock to have changed, short enough for a customer to wait.
_ANEW_WAIT = timedelta(seconds=2)
_ANEW_GROWTH = 4
# Stock and price are looked at again at this pace, while there is patience.
_STOCK_WAIT = timedelta(seconds=30)


class Remedy(StrEnum):
    """What becomes of a purchase that nobody sells us."""

    ATTENTION = "attention"
    """A human decides."""
    REFUND = "refund"
    """It is canceled, and the shop is asked to pay it back."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a shop may decide about buying."""

    price_tolerance_percent: int = 0
    """How far above `max_unit_price` a key may be bought."""
    stock_patience: timedelta = timedelta(minutes=30)
    """How long stock and price are waited for before anything else."""
    most_attempts: int = 5
    """Offers tried for one purchase."""
    when_refused: Remedy = Remedy.ATTENTION

    def unit_limit(self, max_unit_price: int) -> int:
        """Return the highest unit price that is paid, in EUR cents, rounded down."""
        return max_unit_price * (100 + self.price_tolerance_percent) // 100


@dataclass(frozen=True, slots=True)
class Trouble:
    """Which purchases a person wants to go on: with this reason, in trouble since a range of time."""

    reason: Reason | None = None
    since: datetime | None = None
    until: datetime | None = None

    def includes(self, purchase: Purchase) -> bool:
        """Tell whether a purchase is among them."""
        # Of one whose row was set aside and can be read again, the reason is in its order only.
        reason = Reason.ROW_UNREADABLE if is_stranded(purchase) else purchase.reason
        return (
            self.reason in {None, reason}
            and (self.since is None or self.since <= purchase.state_time)
            and (self.until is None or purchase.state_time < self.until)
        )


EVERYTHING = Trouble()


# A no that another offer, or another moment, may not share. Every other one would come again. A product that is sold
# out is as unknown to the supplier as one that never was (K8).
_PASSING = frozenset({"ProductUnavailable", "out_of_stock", "price_above_limit", "not_wholesale", "product_unknown"})
# What a person has delivered by hand completes only a purchase of which nothing can come any more.
_NOT_BOUGHT = frozenset({Reason.PURCHASE_REFUSED, Reason.PURCHASE_TOO_OLD})
_SETTLED = frozenset({Reason.DUPLICATE_KEY, Reason.KEY_UNREADABLE})
_RETRIES: Mapping[Reason, Signal] = {
    Reason.PURCHASE_REFUSED: Signal.RETRY_ANEW,
    Reason.PURCHASE_TOO_OLD: Signal.RETRY_PLACING,
    Reason.KEYS_TOO_LATE: Signal.RETRY_COLLECTING,
    Reason.KEYS_MISSING: Signal.RETRY_COLLECTING,
    Reason.DUPLICATE_KEY: Signal.RETRY_COLLECTING,
    Reason.KEY_UNREADABLE: Signal.RETRY_COLLECTING,
    Reason.PURCHASE_UNKNOWN: Signal.RETRY_COLLECTING,
    Reason.RETURN_REFUSED: Signal.GIVEN_UP_BOUGHT,
    Reason.RETURN_TOO_LATE: Signal.GIVEN_UP_BOUGHT,
}
RETRIED = frozenset({*_RETRIES, Reason.GIVE_UP_TOO_OLD, Reason.ROW_UNREADABLE})
"""Reasons for which trying again may help."""
_NOT_TAKEN_BACK = frozenset({Reason.RETURN_REFUSED, Reason.RETURN_TOO_LATE})
_OVER = frozenset({State.DELIVERED, State.PARTLY_CANCELED, State.CANCELED, State.REFUNDED, State.SUPERSEDED})
_GIVING_UP = frozenset({State.WITHDRAWING, State.REVOKING, State.RETURNING, State.SHREDDING})


def signal_on_claim(purchase: Purchase, now: datetime) -> Signal:
    """Return what claiming a purchase means: time to act, also on one that is too old, unless no last answer comes."""
    if purchase.overdue_time is not None and now - purchase.overdue_time > LAST_ASKING:
        return Signal.TOO_OLD
    return Signal.PLAN_MADE if purchase.state is State.PENDING and purchase.is_planned else Signal.CLAIMED


def is_too_old(purchase: Purchase, now: datetime) -> bool:
    """Tell whether a purchase has waited too long to go on without a human: one more answer, and it does not."""
    since, limit = purchase.state_time, _most_age(purchase)
    if purchase.is_parked:
        since, limit = purchase.park_time or since, MOST_PARKED
    return now - since > limit


def is_claimable(purchase: Purchase) -> bool:
    """Tell whether a worker can do anything with a purchase that is due."""
    return purchase.state in MOST_AGE


def is_stranded(purchase: Purchase) -> bool:
    """Tell whether a purchase waits and is never looked at: its row was set aside, and can be read by now."""
    return is_claimable(purchase) and purchase.next_time is None


def _most_age(purchase: Purchase) -> timedelta:
    if purchase.state is not State.AWAITING_KEYS or not purchase.is_preorder:
        return MOST_AGE[purchase.state]
    if purchase.release_time is None:
        return MOST_WITHOUT_DATE
    return max(purchase.release_time - purchase.state_time, timedelta(0)) + MOST_AFTER_RELEASE


def signal_on_plan_refused(purchase: Purchase, kind: str, policy: Policy, now: datetime) -> Signal:
    """Return what it means that nothing can be planned: a wait while there is patience, then the remedy."""
    if kind in _PASSING and now - purchase.state_time < policy.stock_patience:
        return Signal.PLAN_POSTPONED
    return _remedy(policy)


def signal_on_refusal(purchase: Purchase, kind: str, policy: Policy) -> Signal:
    """Return what a clear no of the supplier means: another attempt, or the remedy."""
    if kind in _PASSING and purchase.attempt < policy.most_attempts:
        return Signal.OFFER_REFUSED
    return _remedy(policy)


def _remedy(policy: Policy) -> Signal:
    return Signal.SALE_REFUSED if policy.when_refused is Remedy.REFUND else Signal.ORDER_REFUSED


def signal_on_retry(purchase: Purchase, keys: Sequence[Key]) -> Signal | None:
    """Return how a purchase that needs attention goes on when a person wants it to; None when it does not."""
    if purchase.state is not State.NEEDS_ATTENTION:
        return None
    if purchase.reason is Reason.GIVE_UP_TOO_OLD:
        return signal_on_giving_up(purchase, keys)
    if purchase.reason in _NOT_BOUGHT:
        return _signal_on_buying_again(purchase, keys)
    if purchase.reason is Reason.KEY_CORRUPTED:
        return _signal_on_mending(purchase, keys)
    return _RETRIES.get(purchase.reason)


def _signal_on_buying_again(purchase: Purchase, keys: Sequence[Key]) -> Signal | None:
    if purchase.supplier_order_id:
        return Signal.RETRY_COLLECTING
    if any(_is_there(key) for key in keys):
        # A person has delivered a part by hand: all of it bought again would be too much.
        return None
    return _RETRIES[purchase.reason] if purchase.is_planned else Signal.RETRY_PLANNING


def _signal_on_mending(purchase: Purchase, keys: Sequence[Key]) -> Signal:
    if is_complete(purchase, keys):
        return Signal.KEYS_MENDED
    # It goes back to where it was: what is missing is waited for, or its money was asked back.
    return Signal.REST_GIVEN_UP if purchase.canceled_quantity else Signal.RETRY_COLLECTING


def signal_on_completion(purchase: Purchase, keys: Sequence[Key]) -> Signal | None:
    """Return how a purchase goes on that needs attention, once a person has delivered or replaced a key of it."""
    if purchase.state is not State.NEEDS_ATTENTION:
        return None
    if purchase.reason is Reason.KEY_CORRUPTED:
        # Another of its keys may be as bad; then vault tells of that one when its owner asks for it.
        return _signal_on_mending(purchase, keys)
    return Signal.DELIVERED_BY_HAND if not purchase.give_up and is_complete(purchase, keys) else None


def signal_on_giving_up(purchase: Purchase, keys: Sequence[Key]) -> Signal:
    """Return which end a purchase of which nothing more is wanted goes to."""
    if purchase.state in {State.PENDING, State.PURCHASING}:
        return Signal.GIVEN_UP_UNBOUGHT
    # What a person has delivered is taken back as what was bought is.
    return Signal.GIVEN_UP_BOUGHT if purchase.supplier_order_id or keys else Signal.GIVEN_UP_UNBOUGHT


def signal_on_cancel(purchase: Purchase, keys: Sequence[Key], *, by_staff: bool = True) -> Signal | None:
    """Return how a purchase is canceled; None where nothing of it is outstanding, or what is cannot be called off.

    The supplier takes back all keys of an order or none (K51): where some have arrived, the others are waited for. What
    it may yet deliver then, and keys that it does not take back, are for staff to write off, not for a customer.
    """
    if purchase.state in _OVER | _GIVING_UP | {State.READY} or purchase.reason is Reason.ROW_UNREADABLE:
        return None
    if purchase.reason is Reason.KEY_CORRUPTED or (not by_staff and purchase.reason in _NOT_TAKEN_BACK):
        return None
    arrived = any(key.is_openable for key in keys)
    if purchase.state is not State.NEEDS_ATTENTION:
        return None if arrived else signal_on_giving_up(purchase, keys)
    if purchase.reason is Reason.GIVE_UP_TOO_OLD:
        return signal_on_giving_up(purchase, keys)
    if arrived:
        return Signal.REST_GIVEN_UP if by_staff else None
    return Signal.LOSS_ACCEPTED if purchase.reason in _NOT_TAKEN_BACK else signal_on_giving_up(purchase, keys)


def signal_on_refund(purchase: Purchase, keys: Sequence[Key]) -> Signal | None:
    """Return what becomes of a purchase whose money went back; None where nothing can be taken back any more."""
    if purchase.state is State.CANCELED:
        return Signal.MONEY_RETURNED
    if purchase.state is State.PARTLY_CANCELED:
        return None if is_all_opened(keys) else Signal.GIVEN_UP_BOUGHT
    if purchase.state in _OVER | _GIVING_UP or purchase.reason is Reason.ROW_UNREADABLE:
        return None
    if purchase.state is State.NEEDS_ATTENTION and purchase.reason in _NOT_TAKEN_BACK:
        return None
    return signal_on_giving_up(purchase, keys)


def actions(purchase: Purchase, keys: Sequence[Key]) -> Sequence[Action]:
    """Return what an operator can do for a purchase now."""
    found = []
    if signal_on_retry(purchase, keys) is not None or is_stranded(purchase):
        found.append(Action.RETRY)
    if is_deliverable(purchase, keys):
        found.append(Action.DELIVER_MANUALLY)
    if any(is_replaceable(purchase, key, keys) for key in keys):
        found.append(Action.REPLACE_KEY)
    if signal_on_cancel(purchase, keys) is not None:
        found.append(Action.CANCEL)
    return found


def order_actions(found: Fulfillment) -> Sequence[Action]:
    """Return what an operator can do for an order as a whole now."""
    if found.reason is Reason.PAYMENT_MISMATCH:
        return [Action.REFUND] if found.purchases else [Action.REFUND, Action.CANCEL]
    return [Action.CANCEL] if found.state is State.AWAITING_PAYMENT else []


def is_deliverable(purchase: Purchase, keys: Sequence[Key]) -> bool:
    """Tell whether a person may deliver a key of a purchase: one is missing, and no other will come in its place."""
    if purchase.state is not State.NEEDS_ATTENTION or is_complete(purchase, keys):
        return False
    return purchase.reason in (_SETTLED if purchase.supplier_order_id else _NOT_BOUGHT)


def is_replaceable(purchase: Purchase, key: Key, keys: Sequence[Key]) -> bool:
    """Tell whether another key may be bought in place of this one: once, and of nothing that is taken back.

    One that is held stands for a key that is missing. Where a person has delivered that, or its money is asked back,
    another would be one too many.
    """
    keeps_keys = purchase.state is State.PARTLY_CANCELED or purchase.reason is Reason.KEY_CORRUPTED
    if purchase.state in _GIVING_UP or (purchase.give_up and not keeps_keys):
        return False
    if purchase.reason is Reason.ROW_UNREADABLE:
        return False
    if key.held and (purchase.state in _OVER or is_complete(purchase, keys)):
        return False
    return key.replace_time is None and key.revoke_time is None


def is_complete(purchase: Purchase, keys: Sequence[Key]) -> bool:
    """Tell whether every key of a purchase is there, or another is bought in its place."""
    return missing(purchase, keys) == 0


def missing(purchase: Purchase, keys: Sequence[Key]) -> int:
    """Return how many keys of a purchase are neither there nor bought anew: another purchase answers for those."""
    return max(purchase.quantity - sum(_is_there(key) for key in keys), 0)


def _is_there(key: Key) -> bool:
    return key.is_openable or key.replace_time is not None


def is_all_opened(keys: Sequence[Key]) -> bool:
    """Tell whether no key of a purchase is left that its owner could open for the first time."""
    return all(key.open_time is not None or key.replace_time is not None or not key.is_openable for key in keys)


def next_look(
    purchase: Purchase, now: datetime, *, patience: timedelta, at_least: timedelta | None = None, jitter: float
) -> datetime:
    """Return when a purchase that stays where it is is looked at again. `patience` is how long stock is waited for."""
    if purchase.state is State.PENDING and purchase.reason is Reason.WAITING_FOR_STOCK:
        # When patience ends it is looked at in any case: what follows must not be late by a whole wait.
        return min(now + _spread(_STOCK_WAIT, jitter), max(purchase.state_time + patience, now))
    release = purchase.release_time
    if purchase.state is State.AWAITING_KEYS and purchase.is_preorder and (release is None or release > now):
        wait = _LONGEST_PREORDER_WAIT if release is None else min(release - now, _LONGEST_PREORDER_WAIT)
        return now + _spread(max(wait, _LONGEST_WAIT), jitter)
    return now + wait_after(purchase.tries, at_least=at_least, jitter=jitter)


def wait_before_attempt(attempt: int, *, jitter: float) -> timedelta:
    """Return how long to wait before the given attempt of a purchase."""
    grown = _ANEW_WAIT * _ANEW_GROWTH ** min(max(attempt - 2, 0), _MOST_STEPS // 4)
    return _spread(min(grown, _LONGEST_WAIT), jitter)


def wait_after(tries: int, *, at_least: timedelta | None = None, jitter: float) -> timedelta:
    """Return how long to wait before asking again: growing, bounded, spread by a quarter with `jitter` in [0, 1)."""
    wait = _spread(min(_FIRST_WAIT * _GROWTH ** min(tries, _MOST_STEPS), _LONGEST_WAIT), jitter)
    return max(wait, at_least) if at_least is not None else wait


def _spread(wait: timedelta, jitter: float) -> timedelta:
    return wait * (0.75 + jitter / 2)
