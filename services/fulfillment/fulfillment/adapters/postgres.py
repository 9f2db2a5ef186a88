"""Fulfillment's own PostgreSQL database: one transaction, everything it may write."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar

from chassis.events import Event, derived_event_id
from chassis.outbox import Outbox
from chassis.request_log import earlier_answer, keep_answer
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment.adapters.postgres_keys import PostgresKeyRows
from fulfillment.adapters.postgres_mail import PostgresMailRows
from fulfillment.adapters.postgres_money import PostgresMoneyRows
from fulfillment.adapters.postgres_orders import PostgresOrderRows
from fulfillment.adapters.postgres_purchases import PostgresPurchaseRows

R = TypeVar("R", bound=Message)

SOURCE = "fulfillment"


class PostgresOrderTransaction(
    PostgresOrderRows, PostgresMoneyRows, PostgresPurchaseRows, PostgresKeyRows, PostgresMailRows
):
    """One transaction over orders, on a connection that the caller commits."""

    def __init__(self, connection: AsyncConnection, outbox: Outbox) -> None:
        super().__init__(connection)
        self._outbox = outbox

    @asynccontextmanager
    async def isolated(self) -> AsyncIterator[None]:
        """Run a block in a savepoint."""
        async with self._connection.begin_nested():
            yield

    async def tell(self, subject: str, message: Message, *, about: str, now: datetime, identity: Sequence[str]) -> None:
        """Put an event into the outbox."""
        event_id = derived_event_id(SOURCE, subject, *identity)
        event = Event.of(message, event_id=event_id, subject=subject, source=SOURCE, about=about, time=now)
        await self._outbox.enqueue(self._connection, event)

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        """Return the answer that this request got before."""
        return await earlier_answer(
            self._connection, request_id=request_id, digest=digest, response_class=response_class
        )

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        """Keep the answer for a repeat of this request."""
        await keep_answer(self._connection, request_id=request_id, digest=digest, response=response)
