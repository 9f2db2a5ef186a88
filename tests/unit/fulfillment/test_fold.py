import itertools
from dataclasses import replace
from random import Random

import pytest
from fulfillment.domain.fold import ORDER_STATES, fold, fold_order
from fulfillment.domain.model import Fulfillment, Line, Reason, State
from fulfillment.domain.payments import PaymentVerdict
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fulfillment.examples import NOON, an_order
from tests.unit.fulfillment.test_late_answers import begin

ADVANCE = [State.AWAITING_PAYMENT, State.PENDING, State.PURCHASING, State.AWAITING_KEYS, State.READY, State.DELIVERED]
SHOWN = {
    State.WITHDRAWING: State.PURCHASING,
    State.REVOKING: State.AWAITING_KEYS,
    State.RETURNING: State.CANCELED,
    State.SHREDDING: State.CANCELED,
}
# What each two come to, where it is not the less advanced one.
TOGETHER = {
    (State.READY, State.CANCELED): State.PARTLY_CANCELED,
    (State.READY, State.REFUNDED): State.PARTLY_CANCELED,
    (State.READY, State.PARTLY_CANCELED): State.PARTLY_CANCELED,
    (State.DELIVERED, State.CANCELED): State.PARTLY_CANCELED,
    (State.DELIVERED, State.REFUNDED): State.PARTLY_CANCELED,
    (State.DELIVERED, State.PARTLY_CANCELED): State.PARTLY_CANCELED,
    (State.CANCELED, State.PARTLY_CANCELED): State.PARTLY_CANCELED,
    (State.REFUNDED, State.PARTLY_CANCELED): State.PARTLY_CANCELED,
    (State.CANCELED, State.REFUNDED): State.CANCELED,
    (State.PURCHASING, State.CANCELED): State.PURCHASING,
    (State.AWAITING_KEYS, State.REFUNDED): State.AWAITING_KEYS,
    (State.NEEDS_ATTENTION, State.CANCELED): State.NEEDS_ATTENTION,
}


def part(state: State) -> tuple[State, Reason]:
    return (state, Reason.KEYS_TOO_LATE if state is State.NEEDS_ATTENTION else Reason.NONE)


PARTS = st.lists(
    st.sampled_from(
        [
            *(part(state) for state in State if state is not State.SUPERSEDED),
            (State.PURCHASING, Reason.BUYING_PAUSED),
            (State.CANCELED, Reason.CANCEL_ASKED),
            (State.PARTLY_CANCELED, Reason.KEYS_MISSING),
        ]
    ),
    min_size=1,
)


def test_every_state_has_its_place() -> None:
    for state in ORDER_STATES:
        assert fold([part(state)]) == part(state)


def test_a_purchase_that_is_given_up_shows_only_whether_that_is_certain_yet() -> None:
    for state, shown in SHOWN.items():
        assert fold([part(state)])[0] is shown
    assert set(State) == {*ORDER_STATES, *SHOWN, State.SUPERSEDED}


@pytest.mark.parametrize(("less", "more"), list(itertools.combinations(ADVANCE, 2)))
def test_the_least_advanced_part_tells_where_the_whole_is(less: State, more: State) -> None:
    assert fold([part(more), part(less)]) == fold([part(less), part(more)]) == part(less)


@pytest.mark.parametrize(("pair", "whole"), TOGETHER.items())
def test_what_will_not_come_makes_the_whole_partly_canceled_or_gone(pair: tuple[State, State], whole: State) -> None:
    one, other = pair
    assert fold([part(one), part(other)])[0] is fold([part(other), part(one)])[0] is whole


@given(PARTS)
def test_one_part_that_needs_attention_is_told_whatever_the_others_are(parts: list[tuple[State, Reason]]) -> None:
    assert fold([*parts, part(State.NEEDS_ATTENTION)]) == part(State.NEEDS_ATTENTION)


@given(PARTS)
def test_what_another_attempt_stands_in_place_of_is_no_part(parts: list[tuple[State, Reason]]) -> None:
    superseded = (State.SUPERSEDED, Reason.PURCHASE_REFUSED)
    assert fold([superseded, *parts]) == fold([*parts, superseded]) == fold(parts)


@given(PARTS, st.randoms(use_true_random=False))
def test_the_order_of_parts_does_not_matter_for_the_state(parts: list[tuple[State, Reason]], luck: Random) -> None:
    shuffled = list(parts)
    luck.shuffle(shuffled)
    assert fold(shuffled)[0] is fold(parts)[0]


@given(PARTS, PARTS)
def test_a_fold_of_folds_is_the_fold_of_all(
    left: list[tuple[State, Reason]], right: list[tuple[State, Reason]]
) -> None:
    assert fold([fold(left), fold(right)])[0] is fold([*left, *right])[0]


@given(PARTS)
def test_an_order_is_never_in_a_state_of_purchases_only(parts: list[tuple[State, Reason]]) -> None:
    assert fold(parts)[0] in ORDER_STATES


def test_the_first_reason_is_told_of_several() -> None:
    first, second = (State.NEEDS_ATTENTION, Reason.DUPLICATE_KEY), (State.NEEDS_ATTENTION, Reason.KEYS_TOO_LATE)
    assert fold([part(State.READY), first, second]) == first


def test_one_part_that_waits_for_a_pause_to_end_says_so_for_its_state() -> None:
    waits, buys = (State.PURCHASING, Reason.BUYING_PAUSED), (State.PURCHASING, Reason.NONE)
    assert fold([buys, waits]) == fold([waits, buys]) == waits
    assert fold([waits, part(State.PENDING)]) == part(State.PENDING)
    assert fold([waits, part(State.NEEDS_ATTENTION)]) == part(State.NEEDS_ATTENTION)


def test_what_is_partly_canceled_tells_why_a_part_will_not_come() -> None:
    gone = (State.CANCELED, Reason.CANCEL_ASKED)
    assert fold([part(State.READY), gone]) == (State.PARTLY_CANCELED, Reason.CANCEL_ASKED)
    assert fold([(State.PARTLY_CANCELED, Reason.KEYS_MISSING), part(State.DELIVERED)])[1] is Reason.KEYS_MISSING


def test_without_purchases_a_line_waits_for_money() -> None:
    assert fold([]) == (State.AWAITING_PAYMENT, Reason.NONE)


def an_order_in(*states: State, is_canceled: bool = False) -> Fulfillment:
    order = an_order("order-1", *(1 for _ in states or (None,)))
    lines = [
        Line(
            item,
            "",
            [replace(begin(1).purchase, state=state)] if state else [],
            [],
            *fold([part(state)] if state else []),
        )
        for item, state in zip(order.items, states or (None,), strict=True)
    ]
    time = NOON if is_canceled else None
    return Fulfillment(order, State.PENDING, Reason.NONE, None, lines, 1, NOON, NOON, None, None, cancel_time=time)


# fmt: off
VERDICTS = [
    # verdict                   bought                canceled  what the order comes to
    (PaymentVerdict.SHORT,      (),                   False, (State.AWAITING_PAYMENT, Reason.NONE)),
    (PaymentVerdict.PAID,       (),                   False, (State.AWAITING_PAYMENT, Reason.NONE)),
    (PaymentVerdict.MISMATCH,   (),                   False, (State.NEEDS_ATTENTION,  Reason.PAYMENT_MISMATCH)),
    (PaymentVerdict.GIVEN_BACK, (),                   False, (State.REFUNDED,         Reason.NONE)),
    (PaymentVerdict.CUT,        (),                   False, (State.NEEDS_ATTENTION,  Reason.PAYMENT_MISMATCH)),
    (PaymentVerdict.CUT,        (),                   True,  (State.CANCELED,         Reason.CANCEL_ASKED)),
    (PaymentVerdict.CUT,        (State.READY,),       False, (State.READY,            Reason.NONE)),
    (PaymentVerdict.SHORT,      (),                   True,  (State.CANCELED,         Reason.CANCEL_ASKED)),
    (PaymentVerdict.PAID,       (),                   True,  (State.CANCELED,         Reason.CANCEL_ASKED)),
    (PaymentVerdict.MISMATCH,   (),                   True,  (State.CANCELED,         Reason.CANCEL_ASKED)),
    (PaymentVerdict.GIVEN_BACK, (),                   True,  (State.REFUNDED,         Reason.NONE)),
    (PaymentVerdict.PAID,       (State.READY,),       False, (State.READY,            Reason.NONE)),
    (PaymentVerdict.SHORT,      (State.READY,),       False, (State.READY,            Reason.NONE)),
    (PaymentVerdict.GIVEN_BACK, (State.REVOKING,),    False, (State.AWAITING_KEYS,    Reason.NONE)),
    (PaymentVerdict.GIVEN_BACK, (State.REFUNDED,),    False, (State.REFUNDED,         Reason.NONE)),
    (PaymentVerdict.MISMATCH,   (State.READY,),       False, (State.NEEDS_ATTENTION,  Reason.PAYMENT_MISMATCH)),
    (PaymentVerdict.PAID,       (State.CANCELED,) * 2, True, (State.CANCELED,         Reason.NONE)),
]
# fmt: on


@pytest.mark.parametrize(("verdict", "states", "is_canceled", "expected"), VERDICTS)
def test_an_order_is_a_fold_over_its_lines_unless_its_money_tells_more(
    verdict: PaymentVerdict, states: tuple[State, ...], *, is_canceled: bool, expected: tuple[State, Reason]
) -> None:
    assert fold_order(an_order_in(*states, is_canceled=is_canceled), verdict) == expected
