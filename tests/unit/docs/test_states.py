"""The picture of a purchase's life must be the table's."""

import re
from pathlib import Path

import pytest
from fulfillment.domain.machine import TRANSITIONS, Signal
from fulfillment.domain.model import State

from docs.generate_states import GIVING_UP, NOTED, PICTURE, render

ROOT = Path(__file__).parents[3]
TEXT = PICTURE.read_text(encoding="utf-8")
ARROW = re.compile(r"^ *(\w+|\[\*\]) --> (\w+|\[\*\])(?:: (.+))?$", flags=re.MULTILINE)


def test_it_is_not_stale() -> None:
    assert render() == TEXT, "run `make states`"


def test_every_line_is_one_that_mermaid_reads() -> None:
    lines = TEXT.splitlines()
    assert "stateDiagram-v2" in lines
    body = lines[lines.index("stateDiagram-v2") + 1 :]
    known = [ARROW, re.compile(r' *state "[^"]+" as \w+ \{'), re.compile(r" *\}"), re.compile(r" *(end )?note.*")]
    for line in body:
        assert any(pattern.fullmatch(line) for pattern in known) or " leads here from " in line, line


def test_every_change_of_state_is_drawn_once() -> None:
    drawn = {
        (before, re.sub(r" \(.\)", "", label), after)
        for before, after, labels in ARROW.findall(TEXT)
        if "[*]" not in {before, after}
        for label in labels.split("<br/>")
    }
    noted = re.findall(r"^ *(\w+) leads here from (.+)", TEXT, flags=re.MULTILINE)
    assert {signal for signal, _ in noted} == {signal.name for signal in NOTED}
    for signal, states in noted:
        drawn |= {(before, signal, State.NEEDS_ATTENTION.value) for before in states.split(", ")}
    assert drawn == {
        (before.value, signal.name, transition.state.value)
        for (before, signal), transition in TRANSITIONS.items()
        if transition.state is not before
    }


def test_what_is_given_up_is_drawn_together() -> None:
    (group,) = re.findall(r'state "given up" as \w+ \{\n(.*?)\n *\}', TEXT, flags=re.DOTALL)
    inner = {name for before, after, _ in ARROW.findall(group) for name in (before, after)}
    assert inner == {state.value for state in GIVING_UP}
    assert {State(name) for name in inner} == {state for state, signal in TRANSITIONS if signal is Signal.TOO_OLD} - {
        State.PENDING,
        State.PURCHASING,
        State.AWAITING_KEYS,
    }


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "services/fulfillment/README.md"])
def test_who_reads_about_states_is_led_to_it(page: str) -> None:
    assert "docs/fulfillment-states.mmd)" in (ROOT / page).read_text(encoding="utf-8")
