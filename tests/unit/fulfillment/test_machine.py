import itertools
from collections import Counter

import pytest
from fulfillment.domain.machine import REPEATS, TRANSITIONS, Command, IllegalSignal, Signal, decide
from fulfillment.domain.model import Reason, State

PURCHASE_STATES = [state for state in State if state is not State.AWAITING_PAYMENT]
ENDS = {State.DELIVERED, State.NEEDS_ATTENTION}
SHORT = {
    "PE": State.PENDING,
    "PU": State.PURCHASING,
    "AK": State.AWAITING_KEYS,
    "RE": State.READY,
    "DE": State.DELIVERED,
    "NA": State.NEEDS_ATTENTION,
}
# The whole table once more, written by hand: where each pair leads, "=" for nothing new, "-" for impossible.
# fmt: off
GRID = {
    #                         PENDING PURCH. AW.KEYS READY DELIV. NEEDS_ATTENTION
    Signal.CLAIMED:          ("PU",   "PU",  "AK",   "-",  "-",   "-"),
    Signal.ORDER_PLACED:     ("-",    "AK",  "=",    "=",  "=",   "="),
    Signal.ORDER_REFUSED:    ("-",    "NA",  "-",    "-",  "-",   "="),
    Signal.ORDER_IN_DOUBT:   ("-",    "PU",  "=",    "=",  "=",   "="),
    Signal.BUYING_PAUSED:    ("-",    "PU",  "=",    "=",  "=",   "="),
    Signal.NO_ANSWER:        ("-",    "PU",  "AK",   "=",  "=",   "="),
    Signal.SOME_KEYS_SEALED: ("-",    "-",   "AK",   "=",  "=",   "="),
    Signal.ALL_KEYS_SEALED:  ("-",    "-",   "RE",   "=",  "=",   "="),
    Signal.KEY_HELD:         ("-",    "-",   "NA",   "-",  "-",   "="),
    Signal.NO_MORE_KEYS:     ("-",    "-",   "NA",   "=",  "=",   "="),
    Signal.KEY_UNREADABLE:   ("-",    "-",   "NA",   "=",  "=",   "="),
    Signal.PURCHASE_UNKNOWN: ("-",    "-",   "NA",   "=",  "=",   "="),
    Signal.TOO_OLD:          ("NA",   "NA",  "NA",   "-",  "-",   "="),
    Signal.ALL_KEYS_OPENED:  ("-",    "-",   "-",    "DE", "=",   "="),
}
# fmt: on
EVERY_PAIR = [
    pytest.param(state, signal, GRID[signal][column], id=f"{signal.name} in {state.name}")
    for signal in Signal
    for column, state in enumerate(SHORT.values())
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


def test_ends_have_no_exits() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] in ENDS]


def test_from_every_state_an_end_can_be_reached() -> None:
    leads_to_an_end = set(ENDS)
    for _ in State:
        leads_to_an_end |= {
            state for (state, _), transition in TRANSITIONS.items() if transition.state in leads_to_an_end
        }
    assert leads_to_an_end == set(PURCHASE_STATES)


def test_no_purchase_ever_goes_back() -> None:
    order = [State.PENDING, State.PURCHASING, State.AWAITING_KEYS, State.READY, State.DELIVERED, State.NEEDS_ATTENTION]
    for (state, _), transition in TRANSITIONS.items():
        assert order.index(transition.state) >= order.index(state)


def test_what_is_ready_can_only_be_delivered() -> None:
    assert {transition.state for (state, _), transition in TRANSITIONS.items() if state is State.READY} == {
        State.DELIVERED
    }


def test_every_state_in_which_we_wait_has_an_exit_on_age() -> None:
    for state in set(PURCHASE_STATES) - ENDS - {State.READY}:
        transition = decide(state, Signal.TOO_OLD)
        assert transition is not None
        assert transition.state is State.NEEDS_ATTENTION


def test_whoever_needs_attention_says_why_and_of_the_others_only_what_is_parked() -> None:
    for (_state, signal), transition in TRANSITIONS.items():
        gives_reason = transition.reason not in {None, Reason.NONE}
        assert gives_reason == (transition.state is State.NEEDS_ATTENTION or signal is Signal.BUYING_PAUSED)
        assert not (transition.state is State.NEEDS_ATTENTION and transition.commands)


def test_every_reason_of_a_purchase_is_given_by_the_table() -> None:
    given = {transition.reason for transition in TRANSITIONS.values()} - {None}
    assert given == set(Reason) - {Reason.PAYMENT_MISMATCH}


def test_money_is_spent_by_one_row_only() -> None:
    spending = [pair for pair, transition in TRANSITIONS.items() if Command.PLACE_ORDER in transition.commands]
    assert spending == [(State.PENDING, Signal.CLAIMED)]


def test_every_command_is_given_once_and_only_on_a_claim() -> None:
    commands = Counter(command for transition in TRANSITIONS.values() for command in transition.commands)
    assert commands == Counter(dict.fromkeys(Command, 1))
    assert {signal for (_, signal), transition in TRANSITIONS.items() if transition.commands} == {Signal.CLAIMED}


def test_a_refusal_and_a_doubt_never_lead_to_the_same_place() -> None:
    refused, in_doubt = (decide(State.PURCHASING, signal) for signal in (Signal.ORDER_REFUSED, Signal.ORDER_IN_DOUBT))
    assert refused is not None
    assert in_doubt is not None
    assert refused.state is State.NEEDS_ATTENTION
    assert in_doubt.state is State.PURCHASING
    assert not in_doubt.commands


def test_a_pause_spends_nothing_and_leaves_the_purchase_where_it_is() -> None:
    paused = decide(State.PURCHASING, Signal.BUYING_PAUSED)
    assert paused is not None
    assert (paused.state, paused.commands, paused.reason) == (State.PURCHASING, (), Reason.BUYING_PAUSED)


@pytest.mark.parametrize("signal", [Signal.CLAIMED, Signal.NO_ANSWER])
def test_only_an_answer_ends_a_pause(signal: Signal) -> None:
    transition = decide(State.PURCHASING, signal)
    assert transition is not None
    assert transition.reason_after(Reason.BUYING_PAUSED) is Reason.BUYING_PAUSED
    assert transition.reason_after(Reason.NONE) is Reason.NONE


def test_a_reason_is_kept_only_where_the_state_is() -> None:
    for (state, _signal), transition in TRANSITIONS.items():
        assert transition.reason is not None or transition.state is state


def test_every_answer_twice_is_the_same_as_once() -> None:
    for (_state, signal), transition in TRANSITIONS.items():
        if signal is Signal.CLAIMED:
            continue
        again = decide(transition.state, signal)
        assert again is None or again.state is transition.state


def test_answers_in_either_order_end_where_one_of_them_leads() -> None:
    """Two workers that ask the same question may be answered differently; the later answer must not be an error."""
    answers = {
        State.PURCHASING: (Signal.ORDER_PLACED, Signal.ORDER_IN_DOUBT, Signal.BUYING_PAUSED, Signal.NO_ANSWER),
        State.AWAITING_KEYS: (
            Signal.SOME_KEYS_SEALED,
            Signal.ALL_KEYS_SEALED,
            Signal.NO_MORE_KEYS,
            Signal.KEY_UNREADABLE,
            Signal.PURCHASE_UNKNOWN,
            Signal.NO_ANSWER,
        ),
    }
    for start, signals in answers.items():
        for first, second in itertools.permutations(signals, 2):
            once = decide(start, first)
            assert once is not None
            decide(once.state, second)
