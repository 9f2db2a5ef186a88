"""What we know of our account at the supplier."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from keyferry.type.v1.actor_pb2 import Actor

from kinguin_gateway.domain.account import Reading, TopUp


@dataclass(frozen=True, slots=True)
class TopUpOrder:
    """A top-up as a person tells it. `digest` tells a repeat from another request with its id."""

    request_id: str
    digest: bytes
    actor: Actor
    top_up: TopUp


@dataclass(frozen=True, slots=True)
class TopUpFilter:
    """Which top-ups a listing is for: those added from `start_time` on, and before `end_time`, where they are given."""

    start_time: datetime | None = None
    end_time: datetime | None = None


class Account(Protocol):
    """Raises ServiceUnavailable while it cannot be reached."""

    async def record_reading(self, balance_cents: int) -> Reading:
        """Keep what was read just now."""
        ...

    async def last_reading(self) -> Reading | None:
        """Return what was read last, by any replica."""
        ...

    async def daily_cents(self) -> int | None:
        """Return what a day cost us on average over the last week; None where nothing was bought in it."""
        ...

    async def record_top_up(self, order: TopUpOrder) -> str:
        """Keep a top-up, once, and return its name. Raises RequestIdReused."""
        ...

    async def top_ups(self, wanted: TopUpFilter, *, size: int, after: tuple[datetime, str] | None) -> Sequence[TopUp]:
        """Return at most `size` top-ups, the first added first, behind a time and name."""
        ...
