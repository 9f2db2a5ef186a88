"""Products that we have bought: the only ones whose changes concern anybody."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from kinguin_gateway.domain.purchase import Product


@dataclass(frozen=True, slots=True)
class DueProduct:
    """A product to be read. `hurried`: something happened to it; `read_time`: what happened before is known."""

    product_id: str
    hurried: bool
    read_time: datetime | None


class Products(Protocol):
    """Raises ServiceUnavailable while they cannot be reached."""

    async def bought(self) -> Collection[str]:
        """Note what was bought since, and return the ids of all products that ever were."""
        ...

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[DueProduct]:
        """Lease products that are due."""
        ...

    async def record(
        self, read: Sequence[tuple[str, Product | None]], unchanged: Sequence[str], *, again: timedelta
    ) -> None:
        """Write what was read, with an event for each whose price or stock is another; None: it is not on sale."""
        ...
