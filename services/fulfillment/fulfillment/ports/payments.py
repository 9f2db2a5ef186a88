"""Payments as staff looks at them: a reading of their own, apart from the work on orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fulfillment.domain.model import OrderId, Payment, Refund


@dataclass(frozen=True, slots=True)
class PaymentRecord:
    """A payment as it is kept. `is_matched` is whether its order is known."""

    payment: Payment
    create_time: datetime
    is_matched: bool
    refunds: Sequence[Refund]


@dataclass(frozen=True, slots=True)
class Unmatched:
    """How many payments wait for an order, how many refunds for a payment, and since when the oldest does."""

    payments: int
    refunds: int
    oldest: datetime | None


class Payments(Protocol):
    """The rows of payments. Raises ServiceUnavailable when the database does not answer."""

    async def find(self, provider: str, payment_id: str) -> PaymentRecord | None:
        """Return one payment."""
        ...

    async def page(
        self, *, order_id: OrderId | None, unmatched: bool, size: int, after: tuple[datetime, str, str] | None
    ) -> Sequence[PaymentRecord]:
        """Return payments, the one that was heard of last first, after the given time, provider and number."""
        ...

    async def unmatched(self) -> Unmatched:
        """Count what waits for its other half."""
        ...
