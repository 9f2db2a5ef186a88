"""What a customer reads about an order."""

from dataclasses import replace

import pytest
from gateway.domain.order import Line, Order, State
from gateway.domain.progress import FINAL, REASON_SENTENCES, TELLINGS, tell, tell_line, tell_pending

from tests.unit.gateway.edge_fakes import an_order

S = State
D, C, W, A, X = "done", "current", "waiting", "attention", "stopped"


def order(state: State, *, keys: int = 0, quantity: int = 1, paid: bool = True) -> Order:
    made = an_order(state=state, keys=keys, quantity=quantity)
    return made if paid else replace(made, pay_time=None)


@pytest.mark.parametrize(
    ("order", "steps"),
    [
        (order(S.AWAITING_PAYMENT, paid=False), [C, W, W, W]),
        (order(S.PENDING), [D, C, W, W]),
        (order(S.PURCHASING), [D, C, W, W]),
        (order(S.AWAITING_KEYS), [D, D, C, W]),
        (order(S.AWAITING_KEYS, keys=1, quantity=2), [D, D, C, W]),
        (order(S.AWAITING_KEYS, keys=1), [D, D, D, C]),
        (order(S.READY, keys=1), [D, D, D, D]),
        (order(S.DELIVERED, keys=1), [D, D, D, D]),
        (order(S.NEEDS_ATTENTION), [D, A, W, W]),
        (order(S.NEEDS_ATTENTION, paid=False), [A, W, W, W]),
        (order(S.PARTLY_CANCELED), [D, X, X, X]),
        (order(S.CANCELED, paid=False), [X, X, X, X]),
        (order(S.REFUNDED), [D, X, X, X]),
    ],
)
def test_steps_follow_the_order(order: Order, steps: list[str]) -> None:
    assert [step.state for step in tell(order).steps] == steps


def test_every_state_has_words_and_the_final_ones_say_so() -> None:
    assert set(TELLINGS) == set(S)
    assert {state for state in S if tell(order(state)).final} == FINAL


def test_a_reason_may_have_its_own_sentence() -> None:
    known = replace(order(S.NEEDS_ATTENTION), reason="PAYMENT_MISMATCH")
    unknown = replace(order(S.NEEDS_ATTENTION), reason="SUPPLIER_UNAUTHORIZED")
    assert tell(known).sentence == REASON_SENTENCES["PAYMENT_MISMATCH"]
    assert tell(unknown).sentence == TELLINGS[S.NEEDS_ATTENTION].sentence


def test_an_order_that_waits_for_its_supplier_says_so_while_it_waits() -> None:
    waiting = replace(order(S.PURCHASING), reason="BUYING_PAUSED")
    assert tell(waiting).sentence == REASON_SENTENCES["BUYING_PAUSED"]
    assert tell(order(S.PURCHASING)).sentence == TELLINGS[S.PURCHASING].sentence


def line(state: State, keys: int, quantity: int) -> Line:
    return order(state, keys=keys, quantity=quantity).lines[0]


def test_a_line_says_how_many_keys_are_here() -> None:
    assert tell_line(line(S.READY, 1, 1)) == "1 key"
    assert tell_line(line(S.READY, 2, 2)) == "2 keys"
    assert tell_line(line(S.AWAITING_KEYS, 1, 2)) == "1 of 2 keys here"
    assert tell_line(line(S.PENDING, 0, 2)) == "2 keys"


@pytest.mark.parametrize("state", list(S))
def test_missing_keys_are_explained_and_none_is_silence(state: State) -> None:
    assert tell_pending(line(state, 2, 2)) == ""
    assert tell_pending(line(state, 0, 1)).startswith("1 key")
    assert tell_pending(line(state, 0, 3)).startswith("3 keys")
