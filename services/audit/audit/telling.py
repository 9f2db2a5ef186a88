"""What audit tells of itself: an entry of its own log, without a detour over JetStream."""

from chassis.events import Event
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.consumer import EventRecorder


class OwnFacts:
    """Implements `chassis.told_settings.Telling`: a fact is in the log once the transaction it is told in commits."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder

    async def enqueue(self, connection: AsyncConnection, *events: Event) -> None:
        """Append the facts in their order; each once, by its id."""
        facts = [(event, AuditRecorded.FromString(event.data)) for event in events]
        await self._recorder.record_group(facts, connection)
