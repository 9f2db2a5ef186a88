"""The desk at which a person sees dead letters and has them handled once more, and the watch that counts those waiting.

What a letter says may be about a person: nobody is shown its body or its headers, only what kind of event it is and
why it could not be handled.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from opentelemetry.trace import SpanKind
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.consumer import (
    HANDLE_SECONDS,
    RESUME_ID,
    Handler,
    handle_once,
    is_of_the_surroundings,
    reason_of,
    understand,
)
from chassis.database import Database, database_now
from chassis.deadline import bounded
from chassis.errors import InvalidRequest, KeyferryError, ServiceUnavailable
from chassis.events import Event, MalformedEvent
from chassis.failpoints import FailpointError
from chassis.metrics import DEAD_LETTER_AGE, DEAD_LETTERS_WAITING
from chassis.tables import DEAD_LETTER, INBOX
from chassis.tracing import extract_trace, span

logger = structlog.get_logger(__name__)

WATCH_SECONDS = 30.0
COUNT_SECONDS = 5.0
# Letters of consumers that this service no longer has: they wait as well, and somebody has to hear of it.
OTHERS = "others"

_L = DEAD_LETTER.c
_SHOWN = (
    _L.dead_letter_id,
    _L.consumer,
    _L.event_id,
    _L.headers["ce-type"].astext.label("type_name"),
    _L.subject,
    _L.reason,
    _L.deliveries,
    _L.create_time,
    _L.replay_time,
)


class DeadLetterUnknown(KeyferryError):
    """There is no such dead letter."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "DEAD_LETTER_UNKNOWN"


class DeadLetterFailed(KeyferryError):
    """The event could not be handled this time either; nothing of it happened, and the letter waits on."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "DEAD_LETTER_FAILED"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a person may see of an event that was given up."""

    dead_letter_id: uuid.UUID
    consumer: str
    event_id: str
    type_name: str
    subject: str
    reason: str
    deliveries: int
    create_time: datetime
    replay_time: datetime | None


WithIt = Callable[[DeadLetter, AsyncConnection], Awaitable[None]]


async def _nothing_more(_letter: DeadLetter, _connection: AsyncConnection) -> None:
    """Leave it at the replay."""


class DeadLetterDesk:
    """Shows and replays the dead letters of one service's consumers. Any number of replicas may have one."""

    def __init__(self, database: Database, consumers: Mapping[str, Mapping[str, Handler[Any]]]) -> None:
        """`consumers` maps each consumer's name to the handlers that it was given."""
        self._database = database
        self._consumers = consumers

    async def page(
        self, *, replayed: bool, size: int, after: tuple[datetime, uuid.UUID] | None
    ) -> Sequence[DeadLetter]:
        """Return letters that were replayed, or that wait, newest first.

        `after` is (create_time, dead_letter_id) of the last one of the page before.
        """
        done = _L.replay_time.is_not(None) if replayed else _L.replay_time.is_(None)
        statement = select(*_SHOWN).where(done).order_by(_L.create_time.desc(), _L.dead_letter_id.desc()).limit(size)
        if after is not None:
            statement = statement.where(tuple_(_L.create_time, _L.dead_letter_id) < after)
        async with self._database.transaction() as connection:
            return [_letter(row) for row in (await connection.execute(statement)).all()]

    async def replay(self, dead_letter_id: uuid.UUID, *, with_it: WithIt = _nothing_more) -> DeadLetter:
        """Handle the event once more and return its letter, marked as replayed; one that was replayed stays as it is.

        The effect, the event's id in the inbox, the mark and what `with_it` writes are one transaction: an event that
        came again and was handled meanwhile is only marked. Raises DeadLetterUnknown, DeadLetterFailed with the new
        reason, which the letter then bears, and what passes by itself (UNAVAILABLE and the like), which says nothing
        about the letter: replay it again.
        """
        try:
            async with bounded(HANDLE_SECONDS):
                return await self._handle(dead_letter_id, with_it)
        except DeadLetterUnknown:
            raise
        except Exception as error:
            if isinstance(error, FailpointError) or (
                isinstance(error, KeyferryError) and is_of_the_surroundings(error)
            ):
                raise
            if is_of_the_surroundings(error):
                raise ServiceUnavailable("something that handling the event needs does not answer") from error
            if not isinstance(error, KeyferryError | MalformedEvent | DecodeError):
                logger.exception("replay failed unexpectedly", dead_letter_id=str(dead_letter_id))
            reason = reason_of(error)
            # Dies here: what failed is rolled back and the letter waits with its old reason, as if nobody had asked.
            await self._note(dead_letter_id, reason)
            raise DeadLetterFailed("the event could not be handled", metadata={"why": reason}) from error

    async def resume(self, consumer: str) -> None:
        """Tell a consumer that stopped after a run of dead letters to go on, in every replica; twice is once.

        One that stops later wants to be told anew. Raises InvalidRequest for a consumer that is not of this service.
        """
        if consumer not in self._consumers:
            raise InvalidRequest.of("consumer", f"must be one of {', '.join(sorted(self._consumers))}")
        now = func.clock_timestamp()
        told = insert(INBOX).values(consumer=consumer, event_id=RESUME_ID, receive_time=now)
        async with self._database.transaction("dead_letter.resume") as connection:
            await connection.execute(
                told.on_conflict_do_update(index_elements=["consumer", "event_id"], set_={"receive_time": now})
            )
        logger.warning("consumer was told to go on", consumer=consumer)

    async def _handle(self, dead_letter_id: uuid.UUID, with_it: WithIt) -> DeadLetter:
        same = _L.dead_letter_id == dead_letter_id
        # Locked: of two who replay it at once, the second finds it replayed.
        stored = select(*_SHOWN, _L.headers, _L.data).where(same).with_for_update()
        async with self._database.transaction("dead_letter.replay") as connection:
            row = (await connection.execute(stored)).one_or_none()
            if row is None:
                raise DeadLetterUnknown("there is no such dead letter")
            if row.replay_time is not None:
                return _letter(row)
            event = Event.parse(subject=row.subject, headers=row.headers, data=row.data)
            take = understand(event, self._consumers.get(row.consumer, {}))
            with span(f"replay {event.subject}", kind=SpanKind.CONSUMER, parent=extract_trace(event.trace)):
                fresh = await handle_once(connection, row.consumer, event, take)
            marked = update(DEAD_LETTER).where(same).values(replay_time=await database_now(connection))
            letter = _letter((await connection.execute(marked.returning(*_SHOWN))).one())
            await with_it(letter, connection)
        logger.info("dead letter was replayed", consumer=letter.consumer, event_id=letter.event_id, fresh=fresh)
        return letter

    async def _note(self, dead_letter_id: uuid.UUID, reason: str) -> None:
        statement = update(DEAD_LETTER).where(_L.dead_letter_id == dead_letter_id, _L.replay_time.is_(None))
        async with self._database.transaction("dead_letter.note") as connection:
            await connection.execute(statement.values(reason=reason))


class DeadLetterWatch:
    """Keeps two gauges of what waits, so that an alert can tell. Every replica counts the same."""

    def __init__(self, database: Database, consumers: Iterable[str]) -> None:
        self._database = database
        self._names = (*consumers, OTHERS)

    async def run(self) -> None:
        """Count until canceled."""
        while True:
            try:
                async with bounded(COUNT_SECONDS):
                    await self.count()
            except (ServiceUnavailable, TimeoutError) as error:
                logger.warning("dead letters are not counted", kind=type(error).__name__)
            await asyncio.sleep(WATCH_SECONDS)

    async def count(self) -> None:
        """Set the gauges. The letters are few: a run of them stops its consumer."""
        age = func.extract("epoch", func.clock_timestamp() - func.min(_L.create_time))
        counted = select(_L.consumer, func.count().label("waiting"), age.label("age"))
        statement = counted.where(_L.replay_time.is_(None)).group_by(_L.consumer)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(statement)).all()
        waiting, oldest = dict.fromkeys(self._names, 0), dict.fromkeys(self._names, 0.0)
        for row in rows:
            name = row.consumer if row.consumer in waiting else OTHERS
            waiting[name] += row.waiting
            oldest[name] = max(oldest[name], float(row.age))
        for name in self._names:
            DEAD_LETTERS_WAITING.labels(name).set(waiting[name])
            DEAD_LETTER_AGE.labels(name).set(oldest[name])


def _letter(row: Row[*tuple[Any, ...]]) -> DeadLetter:
    values = {name: getattr(row, name) for name in DeadLetter.__dataclass_fields__}
    return DeadLetter(**{**values, "type_name": row.type_name or ""})
