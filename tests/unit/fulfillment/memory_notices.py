"""Notices of unusual accesses in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TypeVar

from fulfillment.domain.model import KeyId, OrderId
from fulfillment.ports.notices import Access, NoticeDue
from google.protobuf.message import Message

R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class NoticeRow:
    access: Access
    run_at: datetime | None
    tries: int = 0
    send_time: datetime | None = None
    failure: str = ""


@dataclass
class MemoryNotices:
    """Implements `fulfillment.ports.notices.Notices`, and its transaction; orders are who has which key."""

    keys: Mapping[str, str] = field(default_factory=dict)
    email: str = "alice@example.com"
    locale: str = ""
    rows: dict[tuple[KeyId, date], NoticeRow] = field(default_factory=dict)
    told: dict[tuple[str, ...], Message] = field(default_factory=dict)

    @asynccontextmanager
    async def transaction(self, step: str = "") -> AsyncIterator["MemoryNotices"]:  # noqa: ARG002 # nothing fails here
        yield self

    async def order_of_key(self, key_id: KeyId) -> OrderId | None:
        order_id = self.keys.get(key_id)
        return None if order_id is None else OrderId(order_id)

    async def want_notice(self, access: Access, *, now: datetime) -> None:
        self.rows.setdefault((access.key_id, access.day), NoticeRow(access, now))

    async def notice_done(self, access: Access, *, now: datetime) -> None:
        self._change(access, run_at=None, send_time=now, failure="")

    async def due_notices(self, limit: int, *, lease: timedelta, now: datetime) -> Sequence[NoticeDue]:
        due = [row for row in self.rows.values() if row.run_at is not None and row.run_at <= now][:limit]
        for row in due:
            self._change(row.access, run_at=now + lease, tries=row.tries + 1)
        return [NoticeDue(row.access, self.email, self.locale, row.tries + 1) for row in due]

    async def notice_waits(self, access: Access, *, run_at: datetime | None, failure: str) -> None:
        self._change(access, run_at=run_at, failure=failure)

    def _change(self, access: Access, **changes: object) -> None:
        place = (access.key_id, access.day)
        self.rows[place] = replace(self.rows[place], **changes)  # type: ignore[arg-type] # the fields' own types

    async def tell(self, subject: str, message: Message, *, about: str, now: datetime, identity: Sequence[str]) -> None:  # noqa: ARG002 # what is told is enough
        self.told.setdefault((subject, *identity), message)

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        raise NotImplementedError

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        raise NotImplementedError
