"""Whether we buy: what stops it, for whom, and how long a database that forgot something is not trusted."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from kinguin_gateway.domain.purchase import Problem


class PauseCause(StrEnum):
    """What stopped buying."""

    NONE = ""
    OPERATOR = "operator"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    UNAUTHORIZED = "unauthorized"


#: Clear noes that say nothing about the order (K64, ADR 9): the next order would get the same.
CAUSES = {
    "InsufficientBalance": PauseCause.INSUFFICIENT_BALANCE,
    "Authorization": PauseCause.UNAUTHORIZED,
}

# Longer than any caller goes on asking for a purchase that it asked for before.
CAUTION = timedelta(days=7)
# For so long money is kept for a purchase that was let go, or sent, and is not charged yet as far as we know. Longer,
# and one that nobody asks for any more would take it from those that stand behind it for ever.
RESERVED = timedelta(minutes=10)


def pause_cause(problem: Problem) -> PauseCause:
    """Return what a clear no stops; NONE where it is about the order itself."""
    return CAUSES.get(problem.kind, PauseCause.NONE)


@dataclass(frozen=True, slots=True)
class BuyingStatus:
    """Whether we buy, and since when. `caution_end` is None where the database forgot nothing lately.

    `oldest_parked` is when the first in line was asked for first; None where nobody waits.
    """

    cause: PauseCause
    reason: str
    change_time: datetime
    parked_count: int
    caution_end: datetime | None = None
    oldest_parked: datetime | None = None

    @property
    def paused(self) -> bool:
        """Whether nothing new is sent."""
        return self.cause is not PauseCause.NONE


def must_wait(*, cause: PauseCause, is_new: bool, is_parked: bool, others_wait: bool) -> bool:
    """Tell whether a purchase that was certainly not sent has to wait in line.

    A purchase that was released, or that stood in line before, goes on while only money is short: it is its turn.
    """
    if is_parked or cause in {PauseCause.OPERATOR, PauseCause.UNAUTHORIZED}:
        return True
    return is_new and (others_wait or cause is PauseCause.INSUFFICIENT_BALANCE)
