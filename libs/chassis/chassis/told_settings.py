"""What a service was told at its start, for the audit log: one entry for each change, and no secret in it.

The row of what was told last and the entry are one transaction. Replicas that start together tell a change once.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime

import structlog
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.database import Database, database_now
from chassis.errors import ServiceUnavailable
from chassis.events import Event, derived_event_id
from chassis.outbox import Outbox
from chassis.settings import ServiceSettings
from chassis.tables import TOLD_SETTINGS

logger = structlog.get_logger(__name__)

ACTION = "settings.changed"
RETRY_SECONDS = 1.0
# As much as a detail of an entry may have.
LONGEST_DETAIL = 512


class SettingsTeller:
    """Tells the audit log of settings that are not those told last."""

    def __init__(self, database: Database, outbox: Outbox, settings: ServiceSettings, *, service: str) -> None:
        self._database = database
        self._outbox = outbox
        self._settings = settings
        self._service = service

    async def run(self) -> None:
        """Tell it once; while the database is away, try again."""
        while True:
            try:
                async with self._database.transaction("settings") as connection:
                    await self._tell(connection)
            except ServiceUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _tell(self, connection: AsyncConnection) -> None:
        last = (await connection.execute(select(TOLD_SETTINGS).with_for_update())).one()
        present = self._settings.plain()
        if last.settings == present:
            return
        revision, now = last.revision + 1, await database_now(connection)
        await connection.execute(update(TOLD_SETTINGS).values(revision=revision, settings=present, tell_time=now))
        await self._outbox.enqueue(connection, self._event(revision, _changed(last.settings, present), now))
        logger.info("settings differ from those told last", revision=revision)

    def _event(self, revision: int, changed: str, now: datetime) -> Event:
        digest = self._settings.digest()
        message = AuditRecorded(
            actor=actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=self._service),
            action=ACTION,
            details={"digest": digest, "changed": changed},
        )
        message.occur_time.FromDatetime(now)
        return Event.of(
            message,
            event_id=derived_event_id("audit.recorded", self._service, ACTION, str(revision), digest),
            subject="audit.recorded",
            source=self._service,
            about=ACTION,
            time=now,
        )


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the names of what differs, as many as there is room for; all of them are named as `all`."""
    if not before:
        return "all"
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    while len(text := ",".join(names)) > LONGEST_DETAIL:
        names.pop()
    return text
