from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from fulfillment.domain.machine import TRANSITIONS, Signal
from fulfillment.domain.model import Action, ExternalId, ItemId, Key, KeyId, OrderId, Purchase, Reason, State
from fulfillment.domain.policy import (
    LAST_ASKING,
    MOST_AFTER_RELEASE,
    MOST_AGE,
    MOST_PARKED,
    MOST_WITHOUT_DATE,
    Policy,
    Remedy,
    actions,
    is_all_opened,
    is_complete,
    is_replaceable,
    is_stranded,
    is_too_old,
    next_look,
    signal_on_cancel,
    signal_on_claim,
    signal_on_giving_up,
    signal_on_plan_refused,
    signal_on_refund,
    signal_on_refusal,
    signal_on_retry,
    wait_after,
    wait_before_attempt,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fulfillment.examples import NOON

MOMENT = timedelta(microseconds=1)
PATIENCE = timedelta(minutes=30)
G, R = Signal, Reason
BOUGHT: Mapping[str, object] = {"supplier_order_id": "PHS-1", "unit_limit": 999}
PASSING = ["ProductUnavailable", "out_of_stock", "price_above_limit", "not_wholesale", "product_unknown"]
LASTING = ["country_excluded", "preorder_rules", "ConstraintViolation", "never_taken", "withdrawn"]


def a_purchase(state: State, **changes: object) -> Purchase:
    due = NOON if state in MOST_AGE else None
    purchase = Purchase(ExternalId("kf1-a"), OrderId("order-1"), ItemId("item-1"), 1, state, NOON, next_time=due)
    return replace(purchase, **changes)  # type: ignore[arg-type] # fields by name


def a_key(**changes: object) -> Key:
    key = Key(KeyId("key-1"), ItemId("item-1"), ExternalId("kf1-a"), "text/plain", held=False, ready_time=NOON)
    return replace(key, **changes)  # type: ignore[arg-type] # fields by name


@pytest.mark.parametrize("state", MOST_AGE)
def test_a_purchase_is_too_old_after_its_limit_and_not_at_it(state: State) -> None:
    limit = MOST_AGE[state]
    assert not is_too_old(a_purchase(state), NOON + limit)
    assert is_too_old(a_purchase(state), NOON + limit + MOMENT)


@pytest.mark.parametrize("state", MOST_AGE)
def test_what_is_too_old_is_asked_for_once_more_and_not_for_ever(state: State) -> None:
    late = NOON + 2 * MOST_AGE[state]
    assert signal_on_claim(a_purchase(state), late) is Signal.CLAIMED
    overdue = a_purchase(state, overdue_time=late)
    assert signal_on_claim(overdue, late + LAST_ASKING) is Signal.CLAIMED
    assert signal_on_claim(overdue, late + LAST_ASKING + MOMENT) is Signal.TOO_OLD


def test_every_state_that_a_claim_may_find_has_a_limit() -> None:
    assert {state for state, signal in TRANSITIONS if signal is Signal.CLAIMED} == MOST_AGE.keys()


def test_what_is_planned_is_bought_on_its_first_claim() -> None:
    assert signal_on_claim(a_purchase(State.PENDING, unit_limit=999), NOON) is Signal.PLAN_MADE
    assert signal_on_claim(a_purchase(State.PENDING, unit_limit=0), NOON) is Signal.PLAN_MADE
    assert signal_on_claim(a_purchase(State.PURCHASING, unit_limit=999), NOON) is Signal.CLAIMED


@pytest.mark.parametrize("since_state", [timedelta(), MOST_PARKED * 2])
def test_a_parked_purchase_is_as_old_as_its_parking(since_state: timedelta) -> None:
    parked = a_purchase(State.PURCHASING, state_time=NOON - since_state, reason=Reason.BUYING_PAUSED, park_time=NOON)
    assert not is_too_old(parked, NOON + MOST_PARKED)
    assert is_too_old(parked, NOON + MOST_PARKED + MOMENT)


def test_a_parked_purchase_may_wait_longer_than_one_in_doubt() -> None:
    assert 4 * MOST_AGE[State.PURCHASING] < MOST_PARKED


@pytest.mark.parametrize(
    ("release", "limit"),
    [
        (None, MOST_WITHOUT_DATE),
        (NOON + timedelta(days=90), timedelta(days=90) + MOST_AFTER_RELEASE),
        (NOON - timedelta(days=90), MOST_AFTER_RELEASE),
    ],
)
def test_the_keys_of_a_preorder_may_come_some_days_after_its_release(
    release: datetime | None, limit: timedelta
) -> None:
    waits = a_purchase(State.AWAITING_KEYS, is_preorder=True, release_time=release)
    assert not is_too_old(waits, NOON + limit)
    assert is_too_old(waits, NOON + limit + MOMENT)
    # Being bought takes no longer than for any other.
    buys = replace(waits, state=State.PURCHASING)
    assert is_too_old(buys, NOON + MOST_AGE[State.PURCHASING] + MOMENT)


def test_a_preorder_is_looked_at_seldom_before_its_release_and_soon_after_it() -> None:
    release = NOON + timedelta(days=90)
    waits = a_purchase(State.AWAITING_KEYS, is_preorder=True, release_time=release)
    assert next_look(waits, NOON, patience=PATIENCE, jitter=0.5) == NOON + timedelta(hours=6)
    assert next_look(waits, release - timedelta(hours=1), patience=PATIENCE, jitter=0.5) == release
    assert next_look(waits, release - MOMENT, patience=PATIENCE, jitter=0.5) == release - MOMENT + timedelta(minutes=5)
    assert next_look(waits, release, patience=PATIENCE, jitter=0.5) < release + timedelta(seconds=1)
    unknown = replace(waits, release_time=None)
    assert next_look(unknown, NOON, patience=PATIENCE, jitter=0.5) == NOON + timedelta(hours=6)


def test_stock_is_looked_at_again_at_a_steady_pace() -> None:
    waits = a_purchase(State.PENDING, reason=Reason.WAITING_FOR_STOCK, tries=40)
    assert next_look(waits, NOON, patience=PATIENCE, jitter=0.5) == NOON + timedelta(seconds=30)


def test_stock_is_looked_at_when_patience_ends_and_at_once_where_there_is_none() -> None:
    waits = a_purchase(State.PENDING, reason=Reason.WAITING_FOR_STOCK)
    ends = NOON + PATIENCE
    assert next_look(waits, ends - timedelta(seconds=3), patience=PATIENCE, jitter=0.5) == ends
    assert next_look(waits, NOON + MOMENT, patience=timedelta(0), jitter=0.5) == NOON + MOMENT


REMEDY = {Remedy.ATTENTION: Signal.ORDER_REFUSED, Remedy.REFUND: Signal.SALE_REFUSED}


@pytest.mark.parametrize("remedy", Remedy)
@pytest.mark.parametrize("kind", [*PASSING, *LASTING])
def test_a_plan_that_fails_waits_while_there_is_patience_for_what_passes(kind: str, remedy: Remedy) -> None:
    policy = Policy(stock_patience=timedelta(minutes=30), when_refused=remedy)
    waits = a_purchase(State.PENDING)
    early = signal_on_plan_refused(waits, kind, policy, NOON + timedelta(minutes=30) - MOMENT)
    assert early is (Signal.PLAN_POSTPONED if kind in PASSING else REMEDY[remedy])
    assert signal_on_plan_refused(waits, kind, policy, NOON + timedelta(minutes=30)) is REMEDY[remedy]


@pytest.mark.parametrize("remedy", Remedy)
@pytest.mark.parametrize("kind", [*PASSING, *LASTING])
@pytest.mark.parametrize("attempt", [1, 4, 5, 6])
def test_another_offer_is_tried_so_often_and_only_after_a_no_that_it_may_not_share(
    kind: str, remedy: Remedy, attempt: int
) -> None:
    buys = a_purchase(State.PURCHASING, attempt=attempt)
    signal = signal_on_refusal(buys, kind, Policy(most_attempts=5, when_refused=remedy))
    assert signal is (Signal.OFFER_REFUSED if kind in PASSING and attempt < 5 else REMEDY[remedy])


@pytest.mark.parametrize(("percent", "limit"), [(0, 999), (1, 1008), (10, 1098), (100, 1998)])
def test_the_tolerance_is_rounded_in_the_shops_favour(percent: int, limit: int) -> None:
    assert Policy(price_tolerance_percent=percent).unit_limit(999) == limit


STUCK: list[tuple[Reason, Mapping[str, object], list[Key], Signal | None, Signal | None]] = [
    # reason, what else, its keys, what a retry and what a cancellation means
    (R.PURCHASE_REFUSED, {}, [], G.RETRY_PLANNING, G.GIVEN_UP_UNBOUGHT),
    (R.PURCHASE_REFUSED, {"unit_limit": 9}, [], G.RETRY_ANEW, G.GIVEN_UP_UNBOUGHT),
    (R.PURCHASE_REFUSED, {"unit_limit": 9}, [a_key()], None, G.REST_GIVEN_UP),
    (R.PURCHASE_REFUSED, BOUGHT, [], G.RETRY_COLLECTING, G.GIVEN_UP_BOUGHT),
    (R.PURCHASE_TOO_OLD, {}, [], G.RETRY_PLANNING, G.GIVEN_UP_UNBOUGHT),
    (R.PURCHASE_TOO_OLD, {"unit_limit": 9}, [], G.RETRY_PLACING, G.GIVEN_UP_UNBOUGHT),
    (R.PURCHASE_TOO_OLD, BOUGHT, [], G.RETRY_COLLECTING, G.GIVEN_UP_BOUGHT),
    (R.PURCHASE_TOO_OLD, {"unit_limit": 9}, [a_key()], None, G.REST_GIVEN_UP),
    (R.KEYS_TOO_LATE, BOUGHT, [], G.RETRY_COLLECTING, G.GIVEN_UP_BOUGHT),
    (R.KEYS_TOO_LATE, BOUGHT, [a_key()], G.RETRY_COLLECTING, G.REST_GIVEN_UP),
    (R.KEYS_MISSING, BOUGHT, [a_key()], G.RETRY_COLLECTING, G.REST_GIVEN_UP),
    (R.DUPLICATE_KEY, BOUGHT, [a_key(held=True)], G.RETRY_COLLECTING, G.GIVEN_UP_BOUGHT),
    (R.KEY_UNREADABLE, BOUGHT, [], G.RETRY_COLLECTING, G.GIVEN_UP_BOUGHT),
    (R.KEY_CORRUPTED, BOUGHT, [a_key(), a_key()], G.KEYS_MENDED, None),
    (R.KEY_CORRUPTED, BOUGHT, [a_key()], G.RETRY_COLLECTING, None),
    (R.KEY_CORRUPTED, {**BOUGHT, "canceled_quantity": 1}, [a_key()], G.REST_GIVEN_UP, None),
    (R.KEY_CORRUPTED, {}, [a_key(), a_key()], G.KEYS_MENDED, None),
    (R.PURCHASE_UNKNOWN, BOUGHT, [], G.RETRY_COLLECTING, G.GIVEN_UP_BOUGHT),
    (R.GIVE_UP_TOO_OLD, {}, [], G.GIVEN_UP_UNBOUGHT, G.GIVEN_UP_UNBOUGHT),
    (R.GIVE_UP_TOO_OLD, BOUGHT, [], G.GIVEN_UP_BOUGHT, G.GIVEN_UP_BOUGHT),
    (R.GIVE_UP_TOO_OLD, {}, [a_key()], G.GIVEN_UP_BOUGHT, G.GIVEN_UP_BOUGHT),
    (R.RETURN_REFUSED, BOUGHT, [a_key(revoke_time=NOON)], G.GIVEN_UP_BOUGHT, G.LOSS_ACCEPTED),
    (R.RETURN_REFUSED, BOUGHT, [a_key(open_time=NOON)], G.GIVEN_UP_BOUGHT, G.REST_GIVEN_UP),
    (R.RETURN_TOO_LATE, BOUGHT, [a_key(revoke_time=NOON)], G.GIVEN_UP_BOUGHT, G.LOSS_ACCEPTED),
]


@pytest.mark.parametrize(("reason", "changes", "keys", "retry", "cancel"), STUCK)
def test_what_needs_attention_can_go_on_or_be_given_up(
    reason: Reason, changes: Mapping[str, object], keys: list[Key], retry: Signal | None, cancel: Signal | None
) -> None:
    stuck = a_purchase(State.NEEDS_ATTENTION, quantity=2, reason=reason, **changes)
    assert signal_on_retry(stuck, keys) is retry
    assert signal_on_cancel(stuck, keys) is cancel
    assert (Action.RETRY in actions(stuck, keys)) == (retry is not None)
    assert (Action.CANCEL in actions(stuck, keys)) == (cancel is not None)


def test_every_reason_that_the_table_gives_is_among_them() -> None:
    given = {each.reason for each in TRANSITIONS.values() if each.state is State.NEEDS_ATTENTION}
    assert given <= {reason for reason, *_ in STUCK}


@pytest.mark.parametrize("state", State)
def test_only_what_needs_attention_can_be_retried(state: State) -> None:
    if state is not State.NEEDS_ATTENTION:
        assert signal_on_retry(a_purchase(state), []) is None


def test_of_what_cannot_be_read_nothing_is_decided() -> None:
    unread = a_purchase(State.NEEDS_ATTENTION, reason=Reason.ROW_UNREADABLE, quantity=2, **BOUGHT)
    key = a_key()
    assert signal_on_retry(unread, [key]) is signal_on_cancel(unread, [key]) is signal_on_refund(unread, [key]) is None
    assert not actions(unread, [key])
    assert not is_replaceable(unread, key, [key])


@pytest.mark.parametrize("state", State)
def test_what_waits_and_is_never_due_was_set_aside_and_can_be_let_go_on(state: State) -> None:
    found_again = a_purchase(state, next_time=None)
    assert is_stranded(found_again) is (state in MOST_AGE)
    assert not is_stranded(replace(found_again, next_time=NOON))
    assert (Action.RETRY in actions(found_again, [])) is (state in MOST_AGE)


# fmt: off
WANTED = [
    # state                 keys                           cancel                    refund
    (State.PENDING,         [],                            Signal.GIVEN_UP_UNBOUGHT, Signal.GIVEN_UP_UNBOUGHT),
    (State.PURCHASING,      [],                            Signal.GIVEN_UP_UNBOUGHT, Signal.GIVEN_UP_UNBOUGHT),
    (State.AWAITING_KEYS,   [],                            Signal.GIVEN_UP_BOUGHT,   Signal.GIVEN_UP_BOUGHT),
    (State.AWAITING_KEYS,   [a_key()],                     None,                     Signal.GIVEN_UP_BOUGHT),
    (State.READY,           [a_key(), a_key()],            None,                     Signal.GIVEN_UP_BOUGHT),
    (State.DELIVERED,       [a_key(open_time=NOON)],       None,                     None),
    (State.PARTLY_CANCELED, [a_key()],                     None,                     Signal.GIVEN_UP_BOUGHT),
    (State.PARTLY_CANCELED, [a_key(open_time=NOON)],       None,                     None),
    (State.CANCELED,        [],                            None,                     Signal.MONEY_RETURNED),
    (State.REFUNDED,        [],                            None,                     None),
    (State.SUPERSEDED,      [],                            None,                     None),
    (State.WITHDRAWING,     [],                            None,                     None),
    (State.REVOKING,        [a_key()],                     None,                     None),
    (State.RETURNING,       [a_key(revoke_time=NOON)],     None,                     None),
    (State.SHREDDING,       [a_key(revoke_time=NOON)],     None,                     None),
]
# fmt: on


@pytest.mark.parametrize(("state", "keys", "cancel", "refund"), WANTED)
def test_what_is_given_up_depends_on_how_far_it_came(
    state: State, keys: list[Key], cancel: Signal | None, refund: Signal | None
) -> None:
    bought = BOUGHT if state not in {State.PENDING, State.PURCHASING, State.WITHDRAWING} else {}
    purchase = a_purchase(state, quantity=2, **bought)
    assert signal_on_cancel(purchase, keys) is cancel
    assert signal_on_refund(purchase, keys) is refund
    assert (Action.CANCEL in actions(purchase, keys)) == (cancel is not None)


@pytest.mark.parametrize("state", [State.PENDING, State.PURCHASING])
def test_what_was_not_placed_is_withdrawn_whatever_a_person_uploaded_for_it(state: State) -> None:
    assert signal_on_giving_up(a_purchase(state), [a_key(held=True)]) is Signal.GIVEN_UP_UNBOUGHT


@pytest.mark.parametrize("reason", [Reason.RETURN_REFUSED, Reason.RETURN_TOO_LATE])
def test_a_refund_of_what_the_supplier_keeps_changes_nothing(reason: Reason) -> None:
    kept = a_purchase(State.NEEDS_ATTENTION, reason=reason, **BOUGHT)
    assert signal_on_refund(kept, [a_key(revoke_time=NOON)]) is None


# fmt: off
DELIVERABLE = [
    (Reason.PURCHASE_REFUSED, {},     [],                              True),
    (Reason.PURCHASE_REFUSED, BOUGHT, [],                              False),
    (Reason.PURCHASE_TOO_OLD, {},     [],                              True),
    (Reason.PURCHASE_TOO_OLD, BOUGHT, [],                              False),
    (Reason.PURCHASE_REFUSED, {},     [a_key()],                       True),
    (Reason.PURCHASE_REFUSED, {},     [a_key(), a_key()],              False),
    (Reason.DUPLICATE_KEY,    BOUGHT, [a_key(), a_key(held=True)],     True),
    (Reason.KEY_UNREADABLE,   BOUGHT, [a_key()],                       True),
    (Reason.KEYS_TOO_LATE,    BOUGHT, [],                              False),
    (Reason.PURCHASE_UNKNOWN, BOUGHT, [],                              False),
    (Reason.GIVE_UP_TOO_OLD,  {},     [],                              False),
    (Reason.RETURN_REFUSED,   {},     [a_key(open_time=NOON)],         False),
]
# fmt: on


@pytest.mark.parametrize(("reason", "changes", "keys", "expected"), DELIVERABLE)
def test_a_person_delivers_only_what_nobody_else_will(
    reason: Reason, changes: Mapping[str, object], keys: list[Key], *, expected: bool
) -> None:
    stuck = a_purchase(State.NEEDS_ATTENTION, quantity=2, reason=reason, **changes)
    assert (Action.DELIVER_MANUALLY in actions(stuck, keys)) is expected


# fmt: off
REPLACEABLE = [
    (State.READY,           Reason.NONE,         {},                     True),
    (State.READY,           Reason.NONE,         {"open_time": NOON},    True),
    (State.READY,           Reason.NONE,         {"replace_time": NOON}, False),
    (State.READY,           Reason.NONE,         {"revoke_time": NOON},  False),
    (State.NEEDS_ATTENTION, Reason.NONE,         {"held": True},         True),
    (State.DELIVERED,       Reason.NONE,         {"open_time": NOON},    True),
    (State.DELIVERED,       Reason.REFUND_TAKEN, {"open_time": NOON},    False),
    (State.PARTLY_CANCELED, Reason.CANCEL_ASKED, {},                     True),
    (State.REVOKING,        Reason.REFUND_TAKEN, {},                     False),
    (State.NEEDS_ATTENTION, Reason.CANCEL_ASKED, {"open_time": NOON},    False),
]
# fmt: on


@pytest.mark.parametrize(("state", "give_up", "changes", "expected"), REPLACEABLE)
def test_a_key_is_replaced_once_and_not_when_it_is_taken_back(
    state: State, give_up: Reason, changes: dict[str, object], *, expected: bool
) -> None:
    key = a_key(**changes)
    purchase = a_purchase(state, quantity=2, give_up=give_up)
    assert is_replaceable(purchase, key, [key]) is expected
    assert (Action.REPLACE_KEY in actions(purchase, [key])) is expected


def test_a_held_key_is_replaced_only_while_it_is_missing() -> None:
    held, by_hand = a_key(held=True), a_key()
    stuck = a_purchase(State.NEEDS_ATTENTION, quantity=1)
    assert is_replaceable(stuck, held, [held])
    assert not is_replaceable(stuck, held, [held, by_hand])
    assert not is_replaceable(replace(stuck, state=State.PARTLY_CANCELED, quantity=2), held, [held, by_hand])


def test_keys_that_are_not_taken_back_are_written_off_by_staff_only() -> None:
    kept = a_purchase(State.NEEDS_ATTENTION, reason=Reason.RETURN_REFUSED, give_up=Reason.REFUND_TAKEN)
    assert signal_on_cancel(kept, []) is Signal.LOSS_ACCEPTED
    assert signal_on_cancel(kept, [], by_staff=False) is None
    waiting = a_purchase(State.NEEDS_ATTENTION, reason=Reason.PURCHASE_REFUSED)
    assert signal_on_cancel(waiting, [], by_staff=False) is Signal.GIVEN_UP_UNBOUGHT


def test_keys_that_may_yet_come_beside_others_are_written_off_by_staff_only() -> None:
    late = a_purchase(State.NEEDS_ATTENTION, reason=Reason.KEYS_TOO_LATE, quantity=2, supplier_order_id="PHS1")
    assert signal_on_cancel(late, [a_key()]) is Signal.REST_GIVEN_UP
    assert signal_on_cancel(late, [a_key()], by_staff=False) is None


def test_a_purchase_is_complete_with_what_is_there_or_bought_anew() -> None:
    two = a_purchase(State.NEEDS_ATTENTION, quantity=2)
    held, replaced = a_key(held=True), a_key(held=True, replace_time=NOON)
    assert not is_complete(two, [a_key(), held])
    assert is_complete(two, [a_key(), replaced])
    assert is_complete(two, [a_key(), held, a_key()])
    assert not is_complete(two, [a_key(), a_key(revoke_time=NOON)])


def test_what_nobody_can_open_is_not_waited_for() -> None:
    opened = a_key(open_time=NOON)
    assert is_all_opened([opened, a_key(held=True), a_key(revoke_time=NOON), a_key(replace_time=NOON)])
    assert not is_all_opened([opened, a_key()])


def test_what_waits_for_its_owner_only_has_no_limit() -> None:
    assert {State.READY, State.PARTLY_CANCELED, State.NEEDS_ATTENTION}.isdisjoint(MOST_AGE)


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_bounded_both_ways(tries: int, jitter: float) -> None:
    assert timedelta(seconds=0.2) < wait_after(tries, jitter=jitter) <= timedelta(minutes=5) * 1.25


@given(st.integers(0, 60), st.floats(0, 1, exclude_max=True))
def test_waits_grow(tries: int, jitter: float) -> None:
    assert wait_after(tries + 1, jitter=jitter) >= wait_after(tries, jitter=jitter)


@given(st.integers(2, 1000), st.floats(0, 1, exclude_max=True))
def test_the_wait_before_an_attempt_grows_and_is_bounded(attempt: int, jitter: float) -> None:
    wait = wait_before_attempt(attempt, jitter=jitter)
    assert timedelta(seconds=1) < wait <= timedelta(minutes=5) * 1.25
    assert wait_before_attempt(attempt + 1, jitter=jitter) >= wait


def test_waits_are_spread() -> None:
    assert wait_after(5, jitter=0.9) - wait_after(5, jitter=0.1) > timedelta(seconds=1)


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True), st.timedeltas(timedelta(), timedelta(hours=1)))
def test_who_says_how_long_is_believed(tries: int, jitter: float, at_least: timedelta) -> None:
    assert wait_after(tries, at_least=at_least, jitter=jitter) == max(wait_after(tries, jitter=jitter), at_least)
