"""The connection to NATS and JetStream, and the publishing of events."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import nats
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from chassis.deadline import remaining
from chassis.errors import ServiceUnavailable
from chassis.events import Event
from chassis.metrics import EVENTS_PUBLISHED

logger = structlog.get_logger(__name__)

CONNECT_SECONDS = 5
RECONNECT_SECONDS = 0.5
PUBLISH_SECONDS = 5.0


async def _tell_error(error: Exception) -> None:
    logger.warning("nats connection error", kind=type(error).__name__)


@asynccontextmanager
async def connect_nats(url: str, *, name: str) -> AsyncIterator[Client]:
    """Connect, and stay connected: reconnecting goes on for as long as the process lives."""
    leaving = False

    async def tell_disconnected() -> None:
        if not leaving:
            logger.warning("nats connection lost")

    client = await nats.connect(
        servers=[part.strip() for part in url.split(",")],
        name=name,
        connect_timeout=CONNECT_SECONDS,
        reconnect_time_wait=RECONNECT_SECONDS,
        max_reconnect_attempts=-1,
        error_cb=_tell_error,
        disconnected_cb=tell_disconnected,
    )
    try:
        yield client
    finally:
        leaving = True
        await client.close()


def check_connected(client: Client) -> None:
    """Raise ServiceUnavailable unless the connection is up now."""
    if not client.is_connected:
        raise ServiceUnavailable("nats is not connected")


class Publisher:
    """Publishes events and waits until JetStream has stored them."""

    def __init__(self, client: Client) -> None:
        self._stream = client.jetstream()
        self._client = client

    async def publish(self, *, subject: str, headers: dict[str, str], data: bytes) -> None:
        """Publish one message. Raises ServiceUnavailable when it is not known to be stored; publish it again then."""
        check_connected(self._client)
        try:
            await self._stream.publish(subject, data, headers=headers, timeout=remaining(PUBLISH_SECONDS))
        except (NatsError, TimeoutError, OSError) as error:
            raise ServiceUnavailable("jetstream has not acknowledged the event") from error
        EVENTS_PUBLISHED.labels(subject).inc()

    async def publish_event(self, event: Event) -> None:
        """Publish one event; see `publish`. Whoever publishes has the failpoints around it."""
        await self.publish(subject=event.subject, headers=event.headers(), data=event.data)


def stream_of(subject: str, streams: Sequence[tuple[str, str]]) -> str:
    """Return the stream whose `prefix.` begins the subject."""
    for prefix, stream in streams:
        if subject.startswith(prefix):
            return stream
    raise ValueError(f"no stream takes {subject}")
