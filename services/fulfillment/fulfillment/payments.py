"""Payments as staff looks at them, and an eye on those that wait for their order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from chassis.clock import Clock
from chassis.errors import InvalidRequest, ServiceUnavailable
from chassis.paging import page_size, read_page_token, write_page_token

from fulfillment.domain.model import OrderId
from fulfillment.errors import PaymentNotFound
from fulfillment.metrics import UNMATCHED, UNMATCHED_AGE
from fulfillment.ports.payments import PaymentRecord, Payments

logger = structlog.get_logger(__name__)

DEFAULT_PAGE = 20
LARGEST_PAGE = 100
LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class PaymentPage:
    """Some payments, and where the next ones begin."""

    records: Sequence[PaymentRecord]
    next_token: str


class PaymentDesk:
    """Reads payments."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    async def get(self, provider: str, payment_id: str) -> PaymentRecord:
        """Return one payment. Raises PaymentNotFound."""
        found = await self._payments.find(provider, payment_id)
        if found is None:
            raise PaymentNotFound("there is no such payment")
        return found

    async def page(self, *, order_id: OrderId | None, unmatched: bool, size: int, token: str) -> PaymentPage:
        """Return a page."""
        size = page_size(size, default=DEFAULT_PAGE, largest=LARGEST_PAGE)
        filters = (order_id or "", str(unmatched))
        place = read_page_token(filters, token, parts=3)
        after = None if place is None else _read_place(*place)
        found = await self._payments.page(order_id=order_id, unmatched=unmatched, size=size + 1, after=after)
        shown = found[:size]
        return PaymentPage(shown, _token_after(shown[-1], filters) if len(found) > size else "")


class UnmatchedWatch:
    """Tells, as figures for an alert, of money that waits for its order, or for the payment it was taken from."""

    def __init__(self, payments: Payments, clock: Clock) -> None:
        self._payments = payments
        self._clock = clock

    async def run(self) -> None:
        """Look until canceled."""
        while True:
            try:
                await self.look()
            except ServiceUnavailable as error:
                logger.warning("unmatched payments were not counted", why=error.message)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Count once."""
        found = await self._payments.unmatched()
        UNMATCHED.labels("payment").set(found.payments)
        UNMATCHED.labels("refund").set(found.refunds)
        age = 0.0 if found.oldest is None else (self._clock.now() - found.oldest).total_seconds()
        UNMATCHED_AGE.set(max(age, 0.0))


def _token_after(last: PaymentRecord, filters: Sequence[str]) -> str:
    return write_page_token(filters, [last.create_time.isoformat(), last.payment.provider, last.payment.payment_id])


def _read_place(time: str, provider: str, payment_id: str) -> tuple[datetime, str, str]:
    """Read what a token says; it came from outside and may hold anything."""
    try:
        if "\0" not in provider + payment_id:
            return datetime.fromisoformat(time).astimezone(UTC), provider, payment_id
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest.of("page_token", "must be the next_page_token of the page before")
