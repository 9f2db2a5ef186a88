"""What a service was told at its start, for the audit log: one entry for each change, and no secret in it.

The row of what was told last and the entry are one transaction. Replicas that start together tell a change once.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Protocol

import structlog
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.database import Database, database_now
from chassis.errors import ServiceUnavailable
from chassis.events import Event, derived_event_id
from chassis.settings import ServiceSettings
from chassis.tables import TOLD_SETTINGS

logger = structlog.get_logger(__name__)

ACTION = "settings.changed"
RETRY_SECONDS = 1.0
# As much as a detail of an entry may have.
LONGEST_DETAIL = 512


class Telling(Protocol):
    """Where facts go: the outbox, and for audit itself its log."""

    async def enqueue(self, connection: AsyncConnection, *events: Event) -> None:
        """Store the events with the present transaction; each once, by its id."""
        ...


class SettingsTeller:
    """Tells the audit log of settings that are not those told last."""

    def __init__(self, database: Database, facts: Telling, settings: ServiceSettings, *, service: str) -> None:
        self._database = database
        self._facts = facts
        self._settings = settings
        self._service = service
        self._told = asyncio.Event()

    async def run(self) -> None:
        """Tell it once; while the database is away, try again."""
        while True:
            try:
                async with self._database.transaction("settings") as connection:
                    await self._tell(connection)
            except ServiceUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._told.set()
                return

    async def wait_told(self, seconds: float) -> None:
        """Return once `run` has told it, and at the latest after so many seconds: nothing else waits for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()

    async def _tell(self, connection: AsyncConnection) -> None:
        last = (await connection.execute(select(TOLD_SETTINGS).with_for_update())).one()
        present = self._settings.plain()
        if last.settings == present:
            return
        revision, now = last.revision + 1, await database_now(connection)
        await connection.execute(update(TOLD_SETTINGS).values(revision=revision, settings=present, tell_time=now))
        await self._facts.enqueue(connection, self._event(revision, _changed(last.settings, present), now))
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
