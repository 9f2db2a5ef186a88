"""Takes events from one durable JetStream consumer and commits the effect of each exactly once.

The effect and the event's id in the inbox are one transaction, so that a repeat finds the id and does nothing. An
event that cannot be understood, or fails too often for a reason of its own, becomes a dead letter; a fault of the
surroundings (database or stream down) never counts against it. A run of dead letters stops the consumer: better late
than emptied by a bad deploy. It goes on once each letter of that run was replayed, or when an operator says so.
"""

import asyncio
import hashlib
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from opentelemetry.trace import SpanKind
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.database import Database, database_now
from chassis.deadline import bounded
from chassis.errors import KeyferryError, ServiceUnavailable
from chassis.events import Event, MalformedEvent
from chassis.failpoints import FailpointError, failpoint
from chassis.jetstream import check_connected
from chassis.metrics import CONSUMER_STOPPED, EVENTS_HANDLED
from chassis.tables import DEAD_LETTER, INBOX
from chassis.tracing import extract_trace, span

logger = structlog.get_logger(__name__)

BATCH = 32
FETCH_SECONDS = 2.0
# Below the ack_wait of deploy/nats/streams.yaml, so that an event is not delivered again while it is being handled.
HANDLE_SECONDS = 20.0
# Deliveries of one event that may fail for a reason of its own before it is a dead letter.
MOST_DELIVERIES = 8
MOST_DEAD_IN_A_ROW = 10
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# A pull subscription can go deaf after a server restart without saying so; renewing it costs one round trip.
RENEW_AFTER_IDLE_FETCHES = 5
LATE_SECONDS = 0.05
PAUSE_SECONDS = 1.0
# A person has just replayed or decided something and looks at what happens.
RESUME_CHECK_SECONDS = 5.0
# The event id under which a consumer's inbox keeps the last time that an operator told it to go on.
RESUME_ID = "chassis:resume"
_PASSING_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"})

M = TypeVar("M", bound=Message)
HandlerFunction = Callable[[Event, M, AsyncConnection], Awaitable[None]]
GroupFunction = Callable[[Sequence[tuple[Event, M]], AsyncConnection], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Handler(Generic[M]):
    """What to do with one type of event. The functions write through their connection, and do nothing else.

    With `group`, events that wait together share one transaction; when that fails each is handled by itself, so that
    one bad event takes no other with it. What `wanted` says no to is acknowledged at once, without a transaction and
    without a trace in the inbox: it must be as true of a repeat.
    """

    message_class: type[M]
    function: HandlerFunction[M]
    group: GroupFunction[M] | None = None
    wanted: Callable[[M], bool] | None = None


class Consumer:
    """One durable consumer, declared in deploy/nats/streams.yaml. Any number of replicas may run it."""

    def __init__(
        self,
        *,
        client: Client,
        database: Database,
        stream: str,
        name: str,
        handlers: Mapping[str, Handler[Any]],
    ) -> None:
        """Map full type names to handlers; an event of another type is a dead letter."""
        self._client = client
        self._stream = client.jetstream()
        self._database = database
        self._stream_name = stream
        self._name = name
        self._handlers = handlers
        # Ids of the events buried since one was last handled, and when the last of them was.
        self._dead_run: set[str] = set()
        self._bury_time = datetime.min.replace(tzinfo=UTC)

    async def run(self) -> None:
        """Handle events until canceled; after too many dead letters in a row, only once they were seen to."""
        while True:
            CONSUMER_STOPPED.labels(self._name).set(0)
            try:
                await self._subscribe_and_handle()
            except (NatsError, TimeoutError, OSError, ServiceUnavailable) as error:
                logger.warning("consuming is held up", consumer=self._name, kind=type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)
            if self._must_stop():
                CONSUMER_STOPPED.labels(self._name).set(1)
                logger.error("consumer stopped after a run of dead letters", consumer=self._name)
                await self._until_resumed()
                logger.warning("consumer goes on", consumer=self._name)
                self._dead_run.clear()

    def _must_stop(self) -> bool:
        return len(self._dead_run) >= MOST_DEAD_IN_A_ROW

    async def _until_resumed(self) -> None:
        """Wait for a person; a database that does not answer says nothing."""
        while True:
            try:
                async with bounded(HANDLE_SECONDS):
                    if await self._is_resumed():
                        return
            except (ServiceUnavailable, TimeoutError) as error:
                logger.warning("stopped consumer cannot look", consumer=self._name, kind=type(error).__name__)
            await asyncio.sleep(RESUME_CHECK_SECONDS)

    async def _is_resumed(self) -> bool:
        """Tell whether no letter of the run waits any more, or an operator spoke after the last one was buried."""
        waits = select(DEAD_LETTER.c.event_id).where(
            DEAD_LETTER.c.consumer == self._name,
            DEAD_LETTER.c.event_id.in_(self._dead_run),
            DEAD_LETTER.c.replay_time.is_(None),
        )
        told = select(INBOX.c.event_id).where(
            INBOX.c.consumer == self._name, INBOX.c.event_id == RESUME_ID, INBOX.c.receive_time > self._bury_time
        )
        async with self._database.transaction() as connection:
            if (await connection.execute(told)).first() is not None:
                return True
            return (await connection.execute(waits.limit(1))).first() is None

    async def _subscribe_and_handle(self) -> None:
        # A request made while disconnected is sent on reconnecting, when nobody waits for its answer any more.
        check_connected(self._client)
        subscription = await self._stream.pull_subscribe_bind(self._name, stream=self._stream_name)
        idle = 0
        reconnects = self._client.stats["reconnects"]
        try:
            while (
                idle < RENEW_AFTER_IDLE_FETCHES
                and not self._must_stop()
                and self._client.is_connected
                and self._client.stats["reconnects"] == reconnects
            ):
                try:
                    messages = await subscription.fetch(BATCH, timeout=FETCH_SECONDS)
                except TimeoutError:
                    messages = []
                # The fetch also ends without messages when the server refuses it.
                idle = 0 if messages else idle + 1
                await self._take_all(messages)
        finally:
            await self._leave(subscription)

    async def _leave(self, subscription: JetStreamContext.PullSubscription) -> None:
        """Unsubscribe; what the server sent in the last moment would otherwise wait for its ack_wait."""
        try:
            await asyncio.sleep(LATE_SECONDS)
            while subscription.pending_msgs and not self._must_stop():
                await self._take_all(await subscription.fetch(BATCH, timeout=LATE_SECONDS))
            await subscription.unsubscribe()
        except (NatsError, TimeoutError, OSError):
            logger.debug("subscription was gone already", consumer=self._name)

    async def _take_all(self, messages: Sequence[Msg]) -> None:
        taken = asyncio.ensure_future(self._take_together(messages))
        try:
            await asyncio.shield(taken)
        except asyncio.CancelledError:
            # A drain finishes what was begun; given up, it would wait for its ack_wait before another replica has it.
            await taken
            raise

    async def _take_together(self, messages: Sequence[Msg]) -> None:
        groups: dict[str, list[tuple[Msg, Event]]] = defaultdict(list)
        single = []
        for message in messages:
            event = _parsed_at_first_delivery(message)
            if event is None:
                single.append(message)
            elif self._is_unwanted(event):
                await self._ignore(message)
            else:
                groups[event.type_name].append((message, event))
        for type_name, group in groups.items():
            handler = self._handlers.get(type_name)
            if len(group) == 1 or handler is None or not await self._take_group(handler, group):
                single += [message for message, _ in group]
        await asyncio.gather(*(self._take(message) for message in single))

    def _is_unwanted(self, event: Event) -> bool:
        handler = self._handlers.get(event.type_name)
        if handler is None or handler.wanted is None:
            return False
        try:
            return not handler.wanted(handler.message_class.FromString(event.data))
        except DecodeError:
            # It is buried by whoever handles it.
            return False

    async def _ignore(self, message: Msg) -> None:
        EVENTS_HANDLED.labels(self._name, "ignored").inc()
        try:
            await message.ack()
        except (NatsError, OSError) as error:
            logger.warning("event could not be acknowledged", consumer=self._name, kind=type(error).__name__)

    async def _take_group(self, handler: Handler[Any], group: Sequence[tuple[Msg, Event]]) -> bool:
        """Handle a group in one transaction; False when it failed or may not be, and nothing of it happened."""
        if handler.group is None:
            return False
        # The same event may have been told twice within one batch.
        events = {event.event_id: event for _, event in group}
        try:
            async with bounded(HANDLE_SECONDS), self._database.transaction() as connection:
                rows = [{"consumer": self._name, "event_id": event_id} for event_id in events]
                statement = insert(INBOX).values(rows).on_conflict_do_nothing().returning(INBOX.c.event_id)
                fresh = set((await connection.execute(statement)).scalars())
                pairs = [
                    (event, handler.message_class.FromString(event.data))
                    for event_id, event in events.items()
                    if event_id in fresh
                ]
                if pairs:
                    with span(f"handle group {group[0][1].subject}", kind=SpanKind.CONSUMER):
                        await handler.group(pairs, connection)
                await failpoint("consumer.before_commit")
            await failpoint("consumer.after_commit")
        except Exception as error:  # noqa: BLE001 # each is handled by itself now, and says by itself what is wrong
            logger.info("group is handled one by one", consumer=self._name, kind=type(error).__name__)
            return False
        for message, event in group:
            EVENTS_HANDLED.labels(self._name, "done" if event.event_id in fresh else "repeated").inc()
            try:
                await message.ack()
            except (NatsError, OSError) as error:
                # It is delivered once more and found in the inbox.
                logger.warning("event could not be acknowledged", consumer=self._name, kind=type(error).__name__)
        self._dead_run.clear()
        return True

    async def _take(self, message: Msg) -> None:
        deliveries = message.metadata.num_delivered or 1
        outcome = "done"
        try:
            event = Event.parse(subject=message.subject, headers=message.headers, data=message.data)
            outcome = await self._handle(event, deliveries)
            self._dead_run.clear()
            await message.ack()
        except (MalformedEvent, DecodeError) as error:
            outcome = await self._bury(message, deliveries, reason_of(error))
        except Exception as error:  # an event must not stop the consumer
            if is_of_the_surroundings(error):
                outcome = "retried"
                await self._retry(message, deliveries, error)
            elif deliveries >= MOST_DELIVERIES or isinstance(error, KeyferryError):
                outcome = await self._bury(message, deliveries, reason_of(error))
            else:
                outcome = "retried"
                logger.exception("event failed", consumer=self._name, deliveries=deliveries)
                await self._retry(message, deliveries, error)
        EVENTS_HANDLED.labels(self._name, outcome).inc()

    async def _handle(self, event: Event, deliveries: int) -> str:
        if deliveries > MOST_DELIVERIES * 2:
            # It never got as far as failing in an orderly way: it takes the process down with it.
            raise MalformedEvent("delivered too often without an answer")
        take = understand(event, self._handlers)
        with span(f"handle {event.subject}", kind=SpanKind.CONSUMER, parent=extract_trace(event.trace)):
            async with bounded(HANDLE_SECONDS), self._database.transaction() as connection:
                if not await handle_once(connection, self._name, event, take):
                    return "repeated"
                await failpoint("consumer.before_commit")
            await failpoint("consumer.after_commit")
        return "done"

    async def _retry(self, message: Msg, deliveries: int, error: BaseException) -> None:
        delay = RETRY_SECONDS[min(deliveries, len(RETRY_SECONDS)) - 1]
        logger.warning("event is tried again later", consumer=self._name, kind=type(error).__name__, seconds=delay)
        await message.nak(delay=delay)

    async def _bury(self, message: Msg, deliveries: int, reason: str) -> str:
        headers = dict(message.headers or {})
        # Not the stream's sequence: a stream that is created anew counts from one again.
        event_id = headers.get("ce-id") or f"sha256:{hashlib.sha256(message.data).hexdigest()}"
        row = {
            "dead_letter_id": uuid.uuid4(),
            "consumer": self._name,
            "event_id": event_id,
            "subject": message.subject,
            "headers": headers,
            "data": message.data,
            "reason": reason,
            "deliveries": deliveries,
        }
        try:
            async with self._database.transaction("consumer.bury") as connection:
                statement = (
                    insert(DEAD_LETTER).values(row).on_conflict_do_nothing(index_elements=["consumer", "event_id"])
                )
                await connection.execute(statement)
                bury_time = await database_now(connection)
        except (ServiceUnavailable, FailpointError) as error:
            await self._retry(message, deliveries, error)
            return "retried"
        self._dead_run.add(event_id)
        self._bury_time = bury_time
        logger.error("event became a dead letter", consumer=self._name, event_id=event_id, reason=reason)
        await message.term()
        return "dead"


def understand(event: Event, handlers: Mapping[str, Handler[Any]]) -> Callable[[AsyncConnection], Awaitable[None]]:
    """Return what handles an event within a transaction. Raises MalformedEvent or DecodeError."""
    handler = handlers.get(event.type_name)
    if handler is None:
        raise MalformedEvent(f"type {event.type_name} is not taken by this consumer")
    return partial(handler.function, event, handler.message_class.FromString(event.data))


async def handle_once(
    connection: AsyncConnection, consumer: str, event: Event, take: Callable[[AsyncConnection], Awaitable[None]]
) -> bool:
    """Note the event in the consumer's inbox and handle it; False, and nothing was done, when it stands there already.

    Of two who handle the same event at once, the second waits here for what becomes of the first.
    """
    statement = insert(INBOX).values(consumer=consumer, event_id=event.event_id).on_conflict_do_nothing()
    if (await connection.execute(statement.returning(INBOX.c.event_id))).first() is None:
        return False
    await take(connection)
    return True


def is_of_the_surroundings(error: Exception) -> bool:
    """Tell whether an event failed for a reason that is not its own, and will do once that has passed."""
    if isinstance(error, KeyferryError):
        return error.code.name in _PASSING_CODES
    return isinstance(error, FailpointError | TimeoutError | NatsError | OSError)


def _parsed_at_first_delivery(message: Msg) -> Event | None:
    # One that came before may be what its group failed on.
    if (message.metadata.num_delivered or 1) > 1:
        return None
    try:
        return Event.parse(subject=message.subject, headers=message.headers, data=message.data)
    except MalformedEvent:
        return None


def reason_of(error: Exception) -> str:
    """Return why an event could not be handled, as a person may read it."""
    if isinstance(error, MalformedEvent | DecodeError):
        return str(error) or type(error).__name__
    if isinstance(error, KeyferryError):
        return f"{error.reason}: {error.message}"
    # The text of an unknown exception may hold anything.
    return type(error).__name__
