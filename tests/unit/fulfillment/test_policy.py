from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fulfillment.domain.machine import TRANSITIONS, Signal
from fulfillment.domain.model import Amount, ExternalId, ItemId, OrderId, Purchase, Reason, State
from fulfillment.domain.policy import (
    MOST_AGE,
    MOST_PARKED,
    Paid,
    PaymentVerdict,
    judge_payments,
    signal_on_claim,
    wait_after,
)
from hypothesis import given
from hypothesis import strategies as st

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TOTAL = Amount("EUR", 1000)
SHORT, PAID, MISMATCH = PaymentVerdict.SHORT, PaymentVerdict.PAID, PaymentVerdict.MISMATCH


def eur(*cents: int) -> list[Amount]:
    return [Amount("EUR", each) for each in cents]


# fmt: off
JUDGED = [
    ([],                               Paid(SHORT, None, reaches_total=False)),
    (eur(999),                         Paid(SHORT, Amount("EUR", 999), reaches_total=False)),
    (eur(1000),                        Paid(PAID, Amount("EUR", 1000), reaches_total=True)),
    (eur(1001),                        Paid(MISMATCH, Amount("EUR", 1001), reaches_total=True)),
    (eur(400, 600),                    Paid(PAID, Amount("EUR", 1000), reaches_total=True)),
    (eur(400, 599),                    Paid(SHORT, Amount("EUR", 999), reaches_total=False)),
    (eur(1000, 1),                     Paid(MISMATCH, Amount("EUR", 1001), reaches_total=True)),
    ([Amount("USD", 1000)],            Paid(MISMATCH, Amount("USD", 1000), reaches_total=False)),
    ([Amount("USD", 1), *eur(1000)],   Paid(MISMATCH, Amount("EUR", 1000), reaches_total=True)),
    ([Amount("USD", 1000), *eur(500)], Paid(MISMATCH, Amount("EUR", 500), reaches_total=False)),
]
# fmt: on


@pytest.mark.parametrize(("payments", "expected"), JUDGED)
def test_payments_are_compared_with_the_total(payments: list[Amount], expected: Paid) -> None:
    assert judge_payments(TOTAL, payments) == expected


@given(st.integers(1, 10**12), st.lists(st.integers(1, 10**12)))
def test_only_the_exact_amount_ever_buys(total: int, payments: list[int]) -> None:
    verdict = judge_payments(Amount("EUR", total), eur(*payments)).verdict
    assert (verdict is PAID) == (sum(payments) == total)


@given(st.lists(st.sampled_from([Amount("EUR", 500), Amount("EUR", 1000), Amount("USD", 1000)])))
def test_the_order_of_payments_does_not_matter(payments: list[Amount]) -> None:
    assert judge_payments(TOTAL, payments) == judge_payments(TOTAL, payments[::-1])


def a_purchase(state: State, *, state_time: datetime = NOON) -> Purchase:
    return Purchase(ExternalId("kf1-a"), OrderId("order-1"), ItemId("item-1"), 1, state, state_time)


@pytest.mark.parametrize("state", MOST_AGE)
def test_a_purchase_is_too_old_after_its_limit_and_not_at_it(state: State) -> None:
    limit = MOST_AGE[state]
    assert signal_on_claim(a_purchase(state), NOON + limit) is Signal.CLAIMED
    assert signal_on_claim(a_purchase(state), NOON + limit + timedelta(microseconds=1)) is Signal.TOO_OLD


@pytest.mark.parametrize("since_state", [timedelta(), MOST_PARKED * 2])
def test_a_parked_purchase_is_as_old_as_its_first_parking(since_state: timedelta) -> None:
    parked = replace(
        a_purchase(State.PURCHASING, state_time=NOON - since_state), reason=Reason.BUYING_PAUSED, park_time=NOON
    )
    assert signal_on_claim(parked, NOON + MOST_PARKED) is Signal.CLAIMED
    assert signal_on_claim(parked, NOON + MOST_PARKED + timedelta(microseconds=1)) is Signal.TOO_OLD


def test_a_parked_purchase_may_wait_longer_than_one_in_doubt() -> None:
    assert 4 * MOST_AGE[State.PURCHASING] < MOST_PARKED


def test_every_state_that_a_claim_may_find_has_a_limit() -> None:
    assert {state for state, signal in TRANSITIONS if signal is Signal.CLAIMED} == MOST_AGE.keys()


def test_what_waits_for_its_owner_only_never_gets_too_old() -> None:
    assert signal_on_claim(a_purchase(State.READY), NOON + timedelta(days=9999)) is Signal.CLAIMED


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_bounded_both_ways(tries: int, jitter: float) -> None:
    assert timedelta(seconds=0.2) < wait_after(tries, jitter=jitter) <= timedelta(minutes=5) * 1.25


@given(st.integers(0, 60), st.floats(0, 1, exclude_max=True))
def test_waits_grow(tries: int, jitter: float) -> None:
    assert wait_after(tries + 1, jitter=jitter) >= wait_after(tries, jitter=jitter)


def test_waits_are_spread() -> None:
    assert wait_after(5, jitter=0.9) - wait_after(5, jitter=0.1) > timedelta(seconds=1)


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True), st.timedeltas(timedelta(), timedelta(hours=1)))
def test_who_says_how_long_is_believed(tries: int, jitter: float, at_least: timedelta) -> None:
    assert wait_after(tries, at_least=at_least, jitter=jitter) == max(wait_after(tries, jitter=jitter), at_least)
