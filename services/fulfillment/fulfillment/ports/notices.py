"""Notices of unusual accesses, as fulfillment keeps them until they are sent."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Protocol

from fulfillment.domain.model import KeyId, OrderId
from fulfillment.ports.orders import Telling


class News(Enum):
    """What about an access is new for the key's owner."""

    COUNTRY = "COUNTRY"
    NETWORK = "NETWORK"
    DEVICE = "DEVICE"


@dataclass(frozen=True, slots=True)
class Access:
    """An access to a key that its owner should know of."""

    key_id: KeyId
    order_id: OrderId
    time: datetime
    news: Sequence[News]

    @property
    def day(self) -> date:
        """The day (UTC) of which its key has one notice."""
        return self.time.date()


@dataclass(frozen=True, slots=True)
class NoticeDue:
    """A notice whose time has come."""

    access: Access
    email: str = field(repr=False)
    locale: str
    tries: int


class NoticeTransaction(Telling, Protocol):
    """One transaction over notices and what is told of them."""

    async def order_of_key(self, key_id: KeyId) -> OrderId | None:
        """Return the order that a key belongs to."""
        ...

    async def want_notice(self, access: Access, *, now: datetime) -> None:
        """Let the owner be told; of one key and day only the first time."""
        ...

    async def notice_done(self, access: Access, *, now: datetime) -> None:
        """Note that the mail server took the notice."""
        ...


class Notices(Protocol):
    """The rows of notices. Raises ServiceUnavailable when the database does not answer."""

    def transaction(self, step: str = "") -> AbstractAsyncContextManager[NoticeTransaction]:
        """Run a block in one transaction. One that writes names its `step`, around whose commit failpoints are."""
        ...

    async def due_notices(self, limit: int, *, lease: timedelta, now: datetime) -> Sequence[NoticeDue]:
        """Claim notices that are due; each is nobody else's until the lease ends."""
        ...

    async def notice_waits(self, access: Access, *, run_at: datetime | None, failure: str) -> None:
        """Note why a notice was not taken and when to try again; never when None."""
        ...
