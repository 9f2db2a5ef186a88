import itertools
from collections import Counter

import pytest
from fulfillment.domain.machine import REPEATS, TRANSITIONS, Command, Effect, IllegalSignal, Signal, decide
from fulfillment.domain.model import Reason, State

PURCHASE_STATES = [state for state in State if state is not State.AWAITING_PAYMENT]
SHORT = {
    "PE": State.PENDING,
    "PU": State.PURCHASING,
    "AK": State.AWAITING_KEYS,
    "RE": State.READY,
    "DE": State.DELIVERED,
    "NA": State.NEEDS_ATTENTION,
    "PC": State.PARTLY_CANCELED,
    "CA": State.CANCELED,
    "RF": State.REFUNDED,
    "SU": State.SUPERSEDED,
    "WI": State.WITHDRAWING,
    "RV": State.REVOKING,
    "RT": State.RETURNING,
    "SH": State.SHREDDING,
}
ENDS = {State.DELIVERED, State.REFUNDED, State.SUPERSEDED}
# These wait for a person: for the owner to open what is there, for the shop to pay back, or for an operator.
PEOPLES = {State.READY, State.PARTLY_CANCELED, State.CANCELED, State.NEEDS_ATTENTION}
WAITING = set(PURCHASE_STATES) - ENDS - PEOPLES
# The whole table once more, written by hand: where each pair leads, "=" for nothing new, "-" for impossible.
# fmt: off
GRID = {
    #                            PE PU AK RE DE NA PC CA RF SU WI RV RT SH
    Signal.CLAIMED:             "PE PU AK -  -  -  -  -  -  -  WI RV RT SH",
    Signal.PLAN_MADE:           "PU =  =  =  =  =  =  =  =  =  =  =  =  =",
    Signal.PLAN_COVERED:        "SU =  =  =  =  =  =  =  =  =  =  =  =  =",
    Signal.PLAN_POSTPONED:      "PE =  =  =  =  =  =  =  =  =  =  =  =  =",
    Signal.ORDER_PLACED:        "-  AK =  =  =  =  =  =  =  =  RV =  =  =",
    Signal.ORDER_REFUSED:       "NA NA -  =  =  =  =  =  =  =  CA =  -  =",
    Signal.OFFER_REFUSED:       "-  SU -  =  =  =  =  =  =  =  CA =  -  =",
    Signal.SALE_REFUSED:        "CA CA -  =  =  =  =  =  =  =  CA =  -  =",
    Signal.ORDER_IN_DOUBT:      "-  PU =  =  =  =  =  =  =  =  WI =  =  =",
    Signal.BUYING_PAUSED:       "-  PU =  =  =  =  =  =  =  =  =  =  =  =",
    Signal.NO_ANSWER:           "PE PU AK =  =  =  =  =  =  =  WI RV RT SH",
    Signal.SOME_KEYS_SEALED:    "-  -  AK =  =  =  =  =  =  =  =  =  =  =",
    Signal.ALL_KEYS_SEALED:     "-  -  RE =  =  =  =  =  =  =  =  =  =  =",
    Signal.KEY_HELD:            "-  -  NA =  =  =  =  =  =  =  =  =  =  =",
    Signal.NO_MORE_KEYS:        "-  -  PC =  =  =  =  =  =  =  =  =  =  =",
    Signal.NO_KEYS_AT_ALL:      "-  -  CA =  =  =  =  =  =  =  =  =  =  =",
    Signal.KEY_UNREADABLE:      "-  -  NA =  =  =  =  =  =  =  =  =  =  =",
    Signal.PURCHASE_UNKNOWN:    "-  -  NA =  =  =  =  =  =  =  =  =  =  =",
    Signal.KEY_CORRUPTED:       "-  -  NA NA NA =  NA =  =  -  =  =  =  =",
    Signal.TOO_OLD:             "NA NA NA -  -  =  -  -  -  -  NA NA NA NA",
    Signal.ALL_KEYS_OPENED:     "-  -  -  DE =  =  =  =  =  =  -  DE =  =",
    Signal.DELIVERED_BY_HAND:   "-  -  -  =  =  RE -  -  -  -  -  -  -  -",
    Signal.KEYS_MENDED:         "-  -  -  =  =  RE -  -  -  -  -  -  -  -",
    Signal.RETRY_PLANNING:      "=  =  -  -  -  PE -  -  -  -  -  -  -  -",
    Signal.RETRY_PLACING:       "=  =  =  -  -  PU -  -  -  -  -  -  -  -",
    Signal.RETRY_ANEW:          "-  -  -  -  -  SU -  -  -  =  -  -  -  -",
    Signal.RETRY_COLLECTING:    "-  -  =  =  -  AK -  -  -  -  -  -  -  -",
    Signal.GIVEN_UP_UNBOUGHT:   "WI WI -  -  =  WI =  =  =  =  =  =  =  =",
    Signal.GIVEN_UP_BOUGHT:     "-  -  RV RV =  RV RV =  =  =  =  =  =  =",
    Signal.REST_GIVEN_UP:       "-  -  -  -  =  PC =  =  =  =  =  =  =  =",
    Signal.LOSS_ACCEPTED:       "-  -  -  -  =  CA =  =  =  =  =  =  =  =",
    Signal.ORDER_WITHDRAWN:     "-  -  -  -  =  =  =  =  =  =  CA =  =  =",
    Signal.KEYS_REVOKED:        "-  -  -  -  =  =  =  =  =  =  -  RT =  =",
    Signal.BOUGHT_ELSEWHERE:    "-  -  -  -  =  =  =  =  =  =  -  SH =  =",
    Signal.KEYS_PARTLY_OPENED:  "-  -  -  -  =  =  =  =  =  =  -  NA =  =",
    Signal.KEYS_ARRIVED:        "-  -  -  -  =  =  =  =  =  =  -  RV RV RV",
    Signal.RETURN_UNDER_WAY:    "-  -  -  -  =  =  =  =  =  =  -  =  RT =",
    Signal.KEYS_RETURNED:       "-  -  -  -  =  =  =  =  =  =  -  =  SH =",
    Signal.RETURN_REFUSED:      "-  -  -  -  =  =  =  =  =  =  -  =  NA =",
    Signal.KEYS_SHREDDED:       "-  -  -  -  =  =  =  =  =  =  -  =  =  CA",
    Signal.MONEY_RETURNED:      "=  =  =  =  =  =  =  RF =  =  =  =  =  =",
}
# The rows after which keys will not come, and no others.
MONEY_BACK = {
    (State.PENDING,         Signal.SALE_REFUSED),
    (State.PURCHASING,      Signal.SALE_REFUSED),
    (State.AWAITING_KEYS,   Signal.NO_MORE_KEYS),
    (State.AWAITING_KEYS,   Signal.NO_KEYS_AT_ALL),
    (State.WITHDRAWING,     Signal.ORDER_WITHDRAWN),
    (State.WITHDRAWING,     Signal.ORDER_REFUSED),
    (State.WITHDRAWING,     Signal.OFFER_REFUSED),
    (State.WITHDRAWING,     Signal.SALE_REFUSED),
    (State.REVOKING,        Signal.KEYS_REVOKED),
    (State.REVOKING,        Signal.BOUGHT_ELSEWHERE),
    (State.REVOKING,        Signal.KEYS_PARTLY_OPENED),
    (State.NEEDS_ATTENTION, Signal.REST_GIVEN_UP),
}
# fmt: on
EVERY_PAIR = [
    pytest.param(state, signal, expected, id=f"{signal.name} in {state.name}")
    for signal in Signal
    for state, expected in zip(SHORT.values(), GRID[signal].split(), strict=True)
]


@pytest.mark.parametrize(("state", "signal", "expected"), EVERY_PAIR)
def test_every_pair_leads_where_it_should(state: State, signal: Signal, expected: str) -> None:
    if expected == "-":
        with pytest.raises(IllegalSignal, match=f"{signal.name} in {state.name}"):
            decide(state, signal)
        return
    transition = decide(state, signal)
    assert (None if expected == "=" else SHORT[expected]) == (transition and transition.state)


def test_an_order_that_waits_for_money_has_no_purchase_to_signal() -> None:
    for signal in Signal:
        with pytest.raises(IllegalSignal):
            decide(State.AWAITING_PAYMENT, signal)


def test_the_two_tables_never_speak_of_one_pair() -> None:
    assert not REPEATS & TRANSITIONS.keys()


def test_the_same_pair_is_always_decided_the_same() -> None:
    for pair in [*TRANSITIONS, *REPEATS]:
        assert decide(*pair) is decide(*pair)


def test_every_state_is_reached_from_the_first() -> None:
    reached = {State.PENDING}
    for _ in State:
        reached |= {transition.state for (state, _), transition in TRANSITIONS.items() if state in reached}
    assert reached == set(PURCHASE_STATES)


LOST = (Signal.KEY_CORRUPTED, State.NEEDS_ATTENTION)


def test_ends_have_no_exits_but_for_a_key_that_is_lost() -> None:
    assert {state for state in PURCHASE_STATES if not _exits(state) - {LOST}} == ENDS
    assert {state for state in ENDS if _exits(state)} == {State.DELIVERED}


def test_a_key_that_is_lost_leads_to_a_person_from_wherever_its_owner_could_open_it() -> None:
    assert {state for state in PURCHASE_STATES if LOST in _exits(state)} == {
        *(State.AWAITING_KEYS, State.READY, State.DELIVERED, State.PARTLY_CANCELED)
    }


def test_what_is_over_for_us_goes_on_only_when_money_goes_back() -> None:
    assert _exits(State.CANCELED) == {(Signal.MONEY_RETURNED, State.REFUNDED)}
    assert _exits(State.PARTLY_CANCELED) == {LOST, (Signal.GIVEN_UP_BOUGHT, State.REVOKING)}


def test_from_every_state_an_end_can_be_reached() -> None:
    leads_to_an_end = set(ENDS)
    for _ in State:
        leads_to_an_end |= {
            state for (state, _), transition in TRANSITIONS.items() if transition.state in leads_to_an_end
        }
    assert leads_to_an_end == set(PURCHASE_STATES)


def test_only_a_person_lets_a_purchase_go_back() -> None:
    """Without a person, only a key that came too late leads back: to where it is made sure that nobody opens it."""
    order = [
        *(State.PENDING, State.PURCHASING, State.AWAITING_KEYS, State.READY, State.PARTLY_CANCELED),
        *(State.WITHDRAWING, State.REVOKING, State.RETURNING, State.SHREDDING),
        *(State.CANCELED, State.REFUNDED, State.DELIVERED, State.SUPERSEDED, State.NEEDS_ATTENTION),
    ]
    back = {
        (state, signal)
        for (state, signal), transition in TRANSITIONS.items()
        if state is not State.NEEDS_ATTENTION and order.index(transition.state) < order.index(state)
    }
    assert back == {(State.RETURNING, Signal.KEYS_ARRIVED), (State.SHREDDING, Signal.KEYS_ARRIVED)}


def test_what_is_ready_can_only_be_delivered_or_taken_back_unless_a_key_of_it_is_lost() -> None:
    assert {state for _, state in _exits(State.READY) - {LOST}} == {State.DELIVERED, State.REVOKING}


def test_every_state_in_which_we_wait_has_an_exit_on_age_and_is_claimed() -> None:
    for state in WAITING:
        transition = decide(state, Signal.TOO_OLD)
        assert transition is not None
        assert transition.state is State.NEEDS_ATTENTION
    assert {state for state, signal in TRANSITIONS if signal is Signal.CLAIMED} == WAITING
    assert {state for state, signal in TRANSITIONS if signal is Signal.TOO_OLD} == WAITING


def test_in_every_state_in_which_we_ask_no_answer_changes_nothing() -> None:
    for state in WAITING:
        transition = decide(state, Signal.NO_ANSWER)
        assert transition is not None
        assert (transition.state, transition.commands, transition.effect) == (state, (), None)


def test_whoever_needs_attention_says_why_and_nothing_is_done_for_it() -> None:
    for transition in TRANSITIONS.values():
        if transition.state is State.NEEDS_ATTENTION:
            assert transition.reason
            assert not transition.commands


def test_the_reasons_of_the_table_are_those_of_a_purchase() -> None:
    given = {transition.reason for transition in TRANSITIONS.values()} - {None}
    # These are told of an order, marked by those who give a purchase up, or read where nothing else can be.
    others = {Reason.PAYMENT_MISMATCH, Reason.CANCEL_ASKED, Reason.REFUND_TAKEN, Reason.ROW_UNREADABLE}
    assert given == set(Reason) - others


def test_money_is_spent_by_one_row_only() -> None:
    spending = [pair for pair, transition in TRANSITIONS.items() if Command.PLACE_ORDER in transition.commands]
    assert spending == [(State.PENDING, Signal.PLAN_MADE)]


def test_every_command_is_given_once_and_all_but_buying_only_on_a_claim() -> None:
    commands = Counter(command for transition in TRANSITIONS.values() for command in transition.commands)
    assert commands == Counter(dict.fromkeys(Command, 1))
    for (_, signal), transition in TRANSITIONS.items():
        if transition.commands and signal is not Signal.CLAIMED:
            assert (signal, transition.commands) == (Signal.PLAN_MADE, (Command.PLACE_ORDER,))


def test_a_claim_changes_no_state() -> None:
    for (state, signal), transition in TRANSITIONS.items():
        if signal is Signal.CLAIMED:
            assert (transition.state, transition.effect) == (state, None)


@pytest.mark.parametrize("state", [State.PURCHASING, State.WITHDRAWING])
def test_a_refusal_and_a_doubt_never_lead_to_the_same_place(state: State) -> None:
    in_doubt = decide(state, Signal.ORDER_IN_DOUBT)
    assert in_doubt is not None
    assert (in_doubt.state, in_doubt.commands, in_doubt.effect) == (state, (), None)
    for refusal in (Signal.ORDER_REFUSED, Signal.OFFER_REFUSED, Signal.SALE_REFUSED):
        refused = decide(state, refusal)
        assert refused is not None
        assert refused.state is not state


def test_only_a_refusal_or_a_person_leads_to_another_attempt() -> None:
    assert {pair for pair, transition in TRANSITIONS.items() if transition.effect is Effect.NEXT_ATTEMPT} == {
        (State.PURCHASING, Signal.OFFER_REFUSED),
        (State.NEEDS_ATTENTION, Signal.RETRY_ANEW),
    }


def test_whoever_leaves_a_next_attempt_behind_is_never_bought() -> None:
    for transition in TRANSITIONS.values():
        if transition.effect is Effect.NEXT_ATTEMPT:
            assert transition.state is State.SUPERSEDED


def test_money_is_asked_back_in_exactly_the_rows_after_which_keys_will_not_come() -> None:
    assert {pair for pair, transition in TRANSITIONS.items() if transition.effect is Effect.MONEY_BACK} == MONEY_BACK


def test_a_pause_spends_nothing_and_leaves_the_purchase_where_it_is() -> None:
    paused = decide(State.PURCHASING, Signal.BUYING_PAUSED)
    assert paused is not None
    assert (paused.state, paused.commands, paused.reason) == (State.PURCHASING, (), Reason.BUYING_PAUSED)


@pytest.mark.parametrize("signal", [Signal.CLAIMED, Signal.NO_ANSWER])
@pytest.mark.parametrize(
    ("state", "reason"),
    [(State.PURCHASING, Reason.BUYING_PAUSED), (State.PENDING, Reason.WAITING_FOR_STOCK)],
)
def test_only_an_answer_ends_what_is_waited_for(state: State, reason: Reason, signal: Signal) -> None:
    transition = decide(state, signal)
    assert transition is not None
    assert transition.reason_after(reason) is reason
    assert transition.reason_after(Reason.NONE) is Reason.NONE


def test_a_reason_is_kept_only_where_the_state_is() -> None:
    for (state, _signal), transition in TRANSITIONS.items():
        assert transition.reason is not None or transition.state is state


def test_every_signal_twice_is_the_same_as_once() -> None:
    for (_state, signal), transition in TRANSITIONS.items():
        if signal is Signal.CLAIMED:
            continue
        again = decide(transition.state, signal)
        assert again is None or again.state is transition.state


def test_answers_in_either_order_are_never_an_error() -> None:
    """Two workers that ask the same question may be answered differently; the later answer must not be an error."""
    answers = {
        State.PENDING: (Signal.PLAN_MADE, Signal.PLAN_COVERED, Signal.PLAN_POSTPONED, Signal.NO_ANSWER),
        State.PURCHASING: (Signal.ORDER_PLACED, Signal.ORDER_IN_DOUBT, Signal.BUYING_PAUSED, Signal.NO_ANSWER),
        State.AWAITING_KEYS: (
            Signal.SOME_KEYS_SEALED,
            Signal.ALL_KEYS_SEALED,
            Signal.KEY_HELD,
            Signal.NO_MORE_KEYS,
            Signal.NO_KEYS_AT_ALL,
            Signal.KEY_UNREADABLE,
            Signal.PURCHASE_UNKNOWN,
            Signal.NO_ANSWER,
        ),
        State.WITHDRAWING: (Signal.ORDER_WITHDRAWN, Signal.ORDER_PLACED, Signal.ORDER_IN_DOUBT, Signal.NO_ANSWER),
        State.REVOKING: (
            Signal.KEYS_REVOKED,
            Signal.BOUGHT_ELSEWHERE,
            Signal.KEYS_PARTLY_OPENED,
            Signal.ALL_KEYS_OPENED,
            Signal.KEYS_ARRIVED,
            Signal.NO_ANSWER,
        ),
        State.RETURNING: (
            Signal.RETURN_UNDER_WAY,
            Signal.KEYS_RETURNED,
            Signal.RETURN_REFUSED,
            Signal.KEYS_ARRIVED,
            Signal.NO_ANSWER,
        ),
        State.SHREDDING: (Signal.KEYS_SHREDDED, Signal.KEYS_ARRIVED, Signal.NO_ANSWER),
    }
    for start, signals in answers.items():
        for first, second in itertools.permutations(signals, 2):
            once = decide(start, first)
            assert once is not None
            decide(once.state, second)


def _exits(state: State) -> set[tuple[Signal, State]]:
    return {
        (signal, transition.state)
        for (before, signal), transition in TRANSITIONS.items()
        if before is state and transition.state is not state
    }
