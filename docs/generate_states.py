"""Generate docs/fulfillment-states.mmd from the table of states; with `--check`, only say whether it is stale.

Shown is what changes a purchase's state; what leaves it where it is would hide that. A purchase that needs attention is
drawn once, and who leads there on age, or because a key that was there is lost, is told in a note: nearly everybody
does, and neither is how a purchase's life goes.
"""

import sys
from pathlib import Path

from fulfillment.domain.machine import TRANSITIONS, Effect, Signal
from fulfillment.domain.model import State

PICTURE = Path(__file__).parent / "fulfillment-states.mmd"

GROUP = "GIVING_UP"
GIVING_UP = (State.WITHDRAWING, State.REVOKING, State.RETURNING, State.SHREDDING)
NOTED = (Signal.TOO_OLD, Signal.KEY_CORRUPTED)
HEAD = """\
%% Generated from services/fulfillment/fulfillment/domain/machine.py: `make states`.
%% The life of one purchase. (+) begins another attempt, (€) tells the shop what will not come and asks for the money.
stateDiagram-v2
"""


def render() -> str:
    """Return the picture."""
    inner, outer = list[str](), list[str]()
    for (before, after), labels in _arrows().items():
        (inner if before in GIVING_UP and after in GIVING_UP else outer).append(_arrow(before, after, labels))
    left = {before for before, _ in _arrows()}
    ends = [state for state in State if state is not State.AWAITING_PAYMENT and state not in left]
    lines = [
        f"[*] --> {State.PENDING}",
        f'state "given up" as {GROUP} {{',
        *(f"    {line}" for line in inner),
        "}",
        *outer,
        *(f"{state} --> [*]" for state in ends),
        f"note right of {State.NEEDS_ATTENTION}",
        *(f"    {signal.name} leads here from {', '.join(_before(signal))}" for signal in NOTED),
        "end note",
    ]
    return HEAD + "".join(f"    {line}\n" for line in lines)


def _before(signal: Signal) -> list[str]:
    """Return the states that a signal leads out of."""
    return [state.value for state in State if (state, signal) in TRANSITIONS]


def _arrows() -> dict[tuple[State, State], list[str]]:
    """Return what leads from one state to another, each pair of states once."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (before, signal), transition in TRANSITIONS.items():
        if transition.state is not before and signal not in NOTED:
            mark = {Effect.NEXT_ATTEMPT: " (+)", Effect.MONEY_BACK: " (€)", None: ""}[transition.effect]
            arrows.setdefault((before, transition.state), []).append(signal.name + mark)
    return arrows


def _arrow(before: State, after: State, labels: list[str]) -> str:
    return f"{before} --> {after}: {'<br/>'.join(labels)}"


def main() -> None:
    """Write the picture, or compare it with what it should be."""
    fresh = render()
    if "--check" in sys.argv:
        is_stale = not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != fresh
        sys.exit(f"stale: {PICTURE.name}; run `make states`" if is_stale else 0)
    PICTURE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
