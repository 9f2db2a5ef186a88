"""What will happen to an order after it was taken. Pure: the circumstances in, the steps with their times out."""

from dataclasses import dataclass
from typing import Literal

StepAction = Literal["deliver", "cancel", "return", "refund", "flap", "unflap"]

# Promised keys come this much later than those that are there, and so does the rest of a partial delivery.
LATE_FACTOR = 4


@dataclass(frozen=True, slots=True)
class Flaps:
    """A completed order goes back to `word` and is completed again, so many rounds, `seconds` between changes."""

    rounds: int
    seconds: float
    word: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How the next order is treated. The defaults are those of a good day.

    `first_keys` are delivered at the usual time and the rest `rest_seconds` later; with `cancel` the rest never.
    `search_lag_seconds` keeps the order out of searches. `hold` waits for a release over the control port. `charge`
    (EUR as text) is paid on top of the price. `twin` sells one serial twice: within the order, or with another order.
    """

    accept_duplicate: bool = False
    search_lag_seconds: float = 0.0
    hold: bool = False
    cancel: bool = False
    first_keys: int | None = None
    rest_seconds: float | None = None
    charge: str = "0"
    twin: Literal["order", "orders"] | None = None
    flaps: Flaps | None = None


GOOD_DAY = Circumstances()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do at a time (seconds since 1970; None: when it is released). No `amount` means all that is left."""

    due_at: float | None
    action: StepAction
    amount: int | None = None


def plan_steps(
    circumstances: Circumstances,
    *,
    now: float,
    fulfil_seconds: float,
    ordered: int,
    on_hand: int,
    release_at: float | None,
) -> list[Step]:
    """Return the steps of a new order of so many keys, of which `on_hand` are physically there."""
    usual = now + fulfil_seconds
    if circumstances.hold:
        return [Step(None, "deliver")]
    if circumstances.cancel:
        first = circumstances.first_keys
        deliver = [Step(usual, "deliver", first)] if first else []
        return [*deliver, Step(usual + fulfil_seconds * len(deliver), "cancel")]
    if release_at is not None:
        return [Step(max(usual, release_at), "deliver")]
    first = on_hand if circumstances.first_keys is None else min(circumstances.first_keys, on_hand)
    if first >= ordered:
        return [Step(usual, "deliver")]
    rest_seconds = circumstances.rest_seconds
    later = usual + (LATE_FACTOR * fulfil_seconds if rest_seconds is None else rest_seconds)
    return [*([Step(usual, "deliver", first)] if first else []), Step(later, "deliver")]
