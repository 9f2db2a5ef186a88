"""Lets what needs attention go on in many orders, a page at a time: after an outage nobody asks for each by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from chassis.clock import Clock
from chassis.errors import InvalidRequest
from chassis.paging import page_size, read_page_token, write_page_token
from chassis.validation import IDENTIFIER

from fulfillment.domain.model import OrderId
from fulfillment.domain.policy import Trouble
from fulfillment.errors import NothingToRetry
from fulfillment.operating import Asked, Operating
from fulfillment.ports.orders import OrderTransaction

# All of a page are written in one transaction, which takes a few milliseconds for each.
DEFAULT_PAGE = 50
LARGEST_PAGE = 100
# One order after the other: what was out may not bear all that waits for it at once.
PACE = timedelta(seconds=0.2)
LONGEST_DELAY = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order that does not go on, and why."""

    order_id: OrderId
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RetriedPage:
    """How many orders of a page go on, which do not, and where the next page begins."""

    retried: int
    refused: Sequence[Refusal]
    next_token: str


class Retrying:
    """Retries a page of orders within the caller's transaction."""

    def __init__(self, operating: Operating, clock: Clock) -> None:
        self._operating = operating
        self._clock = clock

    async def retry(
        self, transaction: OrderTransaction, trouble: Trouble, asked: Asked, *, size: int, token: str
    ) -> RetriedPage:
        """Let a page of orders go on, the oldest first. The token remembers until when earlier pages take."""
        size = page_size(size, default=DEFAULT_PAGE, largest=LARGEST_PAGE)
        filters = (trouble.reason or "", *(time.isoformat() if time else "" for time in (trouble.since, trouble.until)))
        place = read_page_token(filters, token, parts=3)
        now = self._clock.now()
        after, begin = (None, now) if place is None else _read_place(*place)
        # A token of another day, or of another hand, delays nothing for longer than pages can take.
        due = min(max(begin, now), now + LONGEST_DELAY)
        found = await transaction.troubled(trouble, size=size + 1, after=after)
        refused = list[Refusal]()
        for _, order_id in found[:size]:
            try:
                await self._operating.retry(transaction, order_id, None, asked, trouble=trouble, delay=due - now)
            except NothingToRetry as error:
                refused.append(Refusal(order_id, error.reason, error.message))
            else:
                due += PACE
        shown = found[:size]
        next_token = ""
        if len(found) > size:
            create_time, order_id = shown[-1]
            next_token = write_page_token(filters, [create_time.isoformat(), order_id, due.isoformat()])
        return RetriedPage(len(shown) - len(refused), refused, next_token)


def _read_place(time: str, order_id: str, due: str) -> tuple[tuple[datetime, str], datetime]:
    """Read what a token says; it came from outside and may hold anything."""
    try:
        if IDENTIFIER.fullmatch(order_id):
            begin = datetime.fromisoformat(due).astimezone(UTC)
            return (datetime.fromisoformat(time).astimezone(UTC), order_id), begin
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest.of("page_token", "must be the next_page_token of the page before")
