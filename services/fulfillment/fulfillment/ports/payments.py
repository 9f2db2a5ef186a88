"""Payments as staff looks at them: a reading of their own, apart from the work on orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from fulfillment.domain.model import OrderId, Payment, Refund


class Closure(StrEnum):
    """How a payment without an order ended."""

    REFUNDED_OUTSIDE = "REFUNDED_OUTSIDE"
    """The money went back to the payer, and no refund will be told of."""
    CLOSED = "CLOSED"
    """It needs nothing more."""


@dataclass(frozen=True, slots=True)
class PaymentRecord:
    """A payment as it is kept. `is_matched` is whether its order is known."""

    payment: Payment
    create_time: datetime
    is_matched: bool
    refunds: Sequence[Refund]
    close_time: datetime | None = None
    closure: Closure | None = None
    close_note: str = ""

    @property
    def is_closed(self) -> bool:
        """Whether a person has ended it."""
        return self.close_time is not None


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
        """Return payments, the one that was heard of last first, after the given time, provider and number.

        `unmatched` ones are those whose order is not known and that nobody has closed.
        """
        ...

    async def unmatched(self) -> Unmatched:
        """Count what waits for its other half, and was not closed."""
        ...
