"""What other services told by event: facts to append and customers to forget, in the transaction of the inbox."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chassis.consumer import Handler
from chassis.errors import KeyferryError
from chassis.events import Event
from keyferry.events.v1.audit_events_pb2 import AuditCustomerErased, AuditRecorded
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.appending import append_drafts
from audit.convert import draft_from_event, erasure_from_event
from audit.erasing import erase_within
from audit.ports import LogTransaction, PersonKeys

STREAM = "AUDIT"
CONSUMER = "audit-recorder"


class EventRecorder:
    """Appends one entry for each event, those that wait together in one transaction."""

    def __init__(self, log_on: Callable[[AsyncConnection], LogTransaction], keys: PersonKeys) -> None:
        self._log_on = log_on
        self._keys = keys

    def handlers(self) -> Mapping[str, Handler[Any]]:
        """Return what this consumer takes."""
        return {
            AuditRecorded.DESCRIPTOR.full_name: Handler(AuditRecorded, self.record, self.record_group),
            AuditCustomerErased.DESCRIPTOR.full_name: Handler(AuditCustomerErased, self.forget),
        }

    async def forget(self, event: Event, body: AuditCustomerErased, connection: AsyncConnection) -> None:
        """Forget a customer; once, however often it is told."""
        await erase_within(self._log_on(connection), self._keys, erasure_from_event(event, body))

    async def record(self, event: Event, body: AuditRecorded, connection: AsyncConnection) -> None:
        """Append the fact; once, however often it is told."""
        await self.record_group([(event, body)], connection)

    async def record_group(self, facts: Sequence[tuple[Event, AuditRecorded]], connection: AsyncConnection) -> None:
        """Append facts in their order, taking one turn in the log for all of them."""
        drafts = [draft_from_event(event, body) for event, body in facts]
        for result in await append_drafts(self._log_on(connection), self._keys, drafts):
            if isinstance(result, KeyferryError):
                raise result
