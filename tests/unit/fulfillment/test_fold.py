import itertools
from random import Random

import pytest
from fulfillment.domain.fold import fold
from fulfillment.domain.model import Reason, State
from hypothesis import given
from hypothesis import strategies as st

ADVANCE = [State.AWAITING_PAYMENT, State.PENDING, State.PURCHASING, State.AWAITING_KEYS, State.READY, State.DELIVERED]


def part(state: State) -> tuple[State, Reason]:
    return (state, Reason.KEYS_MISSING if state is State.NEEDS_ATTENTION else Reason.NONE)


PARTS = st.lists(
    st.sampled_from([*(part(state) for state in State), (State.PURCHASING, Reason.BUYING_PAUSED)]), min_size=1
)


def test_every_state_has_its_place() -> None:
    for state in State:
        assert fold([part(state)]) == part(state)


@pytest.mark.parametrize(("less", "more"), list(itertools.combinations(ADVANCE, 2)))
def test_the_least_advanced_part_tells_where_the_whole_is(less: State, more: State) -> None:
    assert fold([part(more), part(less)]) == fold([part(less), part(more)]) == part(less)


@given(PARTS)
def test_one_part_that_needs_attention_is_told_whatever_the_others_are(parts: list[tuple[State, Reason]]) -> None:
    assert fold([*parts, part(State.NEEDS_ATTENTION)]) == part(State.NEEDS_ATTENTION)


@given(PARTS, st.randoms(use_true_random=False))
def test_the_order_of_parts_does_not_matter_for_the_state(parts: list[tuple[State, Reason]], luck: Random) -> None:
    shuffled = list(parts)
    luck.shuffle(shuffled)
    assert fold(shuffled)[0] is fold(parts)[0]


@given(PARTS, PARTS)
def test_a_fold_of_folds_is_the_fold_of_all(
    left: list[tuple[State, Reason]], right: list[tuple[State, Reason]]
) -> None:
    assert fold([fold(left), fold(right)]) == fold([*left, *right])


def test_the_first_reason_is_told_of_several() -> None:
    first, second = (State.NEEDS_ATTENTION, Reason.DUPLICATE_KEY), (State.NEEDS_ATTENTION, Reason.KEYS_TOO_LATE)
    assert fold([part(State.READY), first, second]) == first


def test_one_part_that_waits_for_a_pause_to_end_says_so_for_its_state() -> None:
    waits, buys = (State.PURCHASING, Reason.BUYING_PAUSED), (State.PURCHASING, Reason.NONE)
    assert fold([buys, waits]) == fold([waits, buys]) == waits
    assert fold([waits, part(State.PENDING)]) == part(State.PENDING)
    assert fold([waits, part(State.NEEDS_ATTENTION)]) == part(State.NEEDS_ATTENTION)


def test_without_purchases_a_line_waits_for_money() -> None:
    assert fold([]) == (State.AWAITING_PAYMENT, Reason.NONE)
