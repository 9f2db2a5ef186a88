"""The schedule of calls of the supplier, one for all replicas."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Slots:
    """Reserved moments: the first after `first`, counted from when it was asked for, the others one `interval` apart.

    `count` is less than was wanted where the rest would have to wait too long; it may be 0.
    """

    count: int
    first: timedelta
    interval: timedelta


class Schedule(Protocol):
    """Gives out the moments at which calls may begin. Raises ServiceUnavailable while it cannot be reached."""

    async def reserve(self, wanted: int) -> Slots:
        """Reserve up to so many moments, none of them further away than its callers have patience."""
        ...

    async def hold(self, wait: timedelta) -> None:
        """Give no moment out that is nearer than this: the supplier asked to be left alone."""
        ...
