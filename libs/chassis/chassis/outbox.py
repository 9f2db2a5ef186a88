"""The outbox: events committed in the transaction of the state they tell of, and the relay that publishes them.

If the process dies between the commit and the publishing, the next relay publishes; if it dies between the
publishing and the note of it, the next one publishes again, under the same id, and every consumer takes it once.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.database import Database, Wakeup, after_commit
from chassis.errors import ServiceUnavailable
from chassis.events import Event
from chassis.failpoints import effect
from chassis.jetstream import Publisher
from chassis.metrics import OUTBOX_WAITING
from chassis.tables import OUTBOX, OUTBOX_STREAM

logger = structlog.get_logger(__name__)

BATCH = 100
# What another replica committed and did not live to publish is found after at most this long.
IDLE_SECONDS = 1.0
STREAM_CHECK_SECONDS = 30.0
# Rows of one step in which a stream is filled again: well within the limit of a statement.
REBUILD_BATCH = 5_000
STREAM_INFO_SECONDS = 5.0
FAILURE_PAUSE_SECONDS = 1.0


class Outbox:
    """Takes events into the caller's transaction and wakes the relay when it commits."""

    def __init__(self, streams: Mapping[str, str]) -> None:
        """Map the first word of each subject this service publishes to its stream."""
        self.streams = dict(streams)
        self.wakeup = Wakeup()

    async def enqueue(self, connection: AsyncConnection, *events: Event) -> None:
        """Store the events; one whose id is there already is the same event and is not stored again."""
        if not events:
            return
        rows = [
            {
                "event_id": event.event_id,
                "stream": self.streams[event.subject.partition(".")[0]],
                "subject": event.subject,
                "headers": event.headers(),
                "data": event.data,
            }
            for event in events
        ]
        await connection.execute(insert(OUTBOX).on_conflict_do_nothing(index_elements=["event_id"]), rows)
        after_commit(connection, self.wakeup.set)


class Relay:
    """Publishes what the outbox holds, oldest first. Any number of replicas may run one."""

    def __init__(self, database: Database, outbox: Outbox, client: Client) -> None:
        self._database = database
        self._outbox = outbox
        self._client = client
        self._publisher = Publisher(client)
        self._next_check = 0.0

    async def run(self) -> None:
        """Publish until canceled."""
        while True:
            try:
                await self._notice_new_streams()
                if await self.publish_batch() < BATCH:
                    await self._outbox.wakeup.wait(IDLE_SECONDS)
            except ServiceUnavailable as error:
                logger.warning("publishing is held up", why=error.message)
                await asyncio.sleep(FAILURE_PAUSE_SECONDS)

    async def publish_batch(self) -> int:
        """Publish one batch and return its size.

        The rows stay locked while they are published, so that two replicas do not publish the same; a stuck publish
        ends by its own deadline, below the database's limit for an idle transaction.
        """
        async with self._database.transaction("outbox") as connection:
            rows = (
                await connection.execute(
                    select(OUTBOX.c.position, OUTBOX.c.subject, OUTBOX.c.headers, OUTBOX.c.data)
                    .where(OUTBOX.c.publish_time.is_(None))
                    .order_by(OUTBOX.c.position)
                    .limit(BATCH)
                    .with_for_update(skip_locked=True)
                )
            ).all()
            if not rows:
                return 0
            results = await effect("outbox.publish", lambda: self._publish_all(rows))
            done = [row.position for row, result in zip(rows, results, strict=True) if result is None]
            if done:
                await connection.execute(
                    update(OUTBOX)
                    .where(OUTBOX.c.position.in_(bindparam("done", expanding=True)))
                    .values(publish_time=func.now()),
                    {"done": done},
                )
        OUTBOX_WAITING.set(len(rows) - len(done))
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]
        return len(rows)

    async def _publish_all(self, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[BaseException | None]:
        return await asyncio.gather(
            *(self._publisher.publish(subject=row.subject, headers=row.headers, data=row.data) for row in rows),
            return_exceptions=True,
        )

    async def _notice_new_streams(self) -> None:
        """Publish everything retained again when a stream was created anew: it lost what it held."""
        now = asyncio.get_running_loop().time()
        if now < self._next_check:
            return
        for stream in sorted(set(self._outbox.streams.values())):
            created = await self._stream_created(stream)
            known = await self._known(stream)
            if known == created:
                continue
            if known is not None:
                logger.warning("stream was created anew, publishing again what is retained", stream=stream)
                await self._wait_again(stream)
            # Only now is it known: who dies before lets the next one begin again, which repeats some under the same id.
            async with self._database.transaction("outbox.streams") as connection:
                statement = insert(OUTBOX_STREAM).values(stream=stream, create_time=created)
                await connection.execute(
                    statement.on_conflict_do_update(index_elements=["stream"], set_={"create_time": created})
                )
        self._next_check = now + STREAM_CHECK_SECONDS

    async def _known(self, stream: str) -> datetime | None:
        async with self._database.transaction() as connection:
            query = select(OUTBOX_STREAM.c.create_time).where(OUTBOX_STREAM.c.stream == stream)
            return (await connection.execute(query)).scalar_one_or_none()

    async def _wait_again(self, stream: str) -> None:
        """Let all that was published before now wait again, in steps: a month of it is too much for one statement.

        What begins to be published after now goes to the new stream and is left alone. What is just being published
        has no time yet; it is locked, so that its step waits for it.
        """
        async with self._database.transaction() as connection:
            began, last = (await connection.execute(select(func.now(), func.max(OUTBOX.c.position)))).one()
        position = 0
        while position < (last or 0):
            step = (
                select(OUTBOX.c.position)
                .where(OUTBOX.c.position > position, OUTBOX.c.position <= last)
                .order_by(OUTBOX.c.position)
                .limit(REBUILD_BATCH)
                .subquery()
            )
            async with self._database.transaction("outbox.rebuild") as connection:
                end = (await connection.execute(select(func.max(step.c.position)))).scalar_one_or_none()
                if end is None:
                    break
                await connection.execute(
                    update(OUTBOX)
                    .where(
                        OUTBOX.c.stream == stream,
                        OUTBOX.c.position > position,
                        OUTBOX.c.position <= end,
                        or_(OUTBOX.c.publish_time.is_(None), OUTBOX.c.publish_time <= began),
                    )
                    .values(publish_time=None)
                )
            position = end

    async def _stream_created(self, stream: str) -> datetime:
        try:
            async with asyncio.timeout(STREAM_INFO_SECONDS):
                info = await self._client.jetstream().stream_info(stream)
        except (NatsError, TimeoutError, OSError) as error:
            raise ServiceUnavailable(f"jetstream does not tell about the stream {stream}") from error
        created = info.created
        if isinstance(created, datetime):
            return created.astimezone(UTC)
        raise ServiceUnavailable(f"jetstream does not say when the stream {stream} was created")
