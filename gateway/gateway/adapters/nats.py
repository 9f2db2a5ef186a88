"""Accepted webhooks, and facts for the audit log, into JetStream."""

import asyncio
from datetime import timedelta

from chassis.clock import Clock
from chassis.errors import ServiceUnavailable
from chassis.events import Event, derived_event_id
from chassis.failpoints import FailpointError, effect
from chassis.jetstream import Publisher, connect_nats

from gateway.convert import fact_to_proto, hint_to_proto
from gateway.domain.fact import Fact
from gateway.domain.webhook import WebhookHint
from gateway.errors import EventsUnavailable

SOURCE = "edge"
SUBJECT = "kinguin.webhook.received"
FACT_SUBJECT = "audit.recorded"
_RETRY_AFTER = timedelta(seconds=5)
# Five seconds of a flood of 200 a second: more than that waits only while JetStream hangs, and the supplier repeats.
MOST_PUBLISHING = 1000


class NatsWebhooks:
    """Implements `WebhookSink`. Pages are served with NATS down: the connection is made beside them, not before."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._publisher: Publisher | None = None
        self._publishing = 0

    async def keep_connected(self) -> None:
        """Hold the connection until cancelled."""
        async with connect_nats(self._url, name="edge") as client:
            self._publisher = Publisher(client)
            await asyncio.Event().wait()

    @property
    def publisher(self) -> Publisher | None:
        """Return what publishes over the connection; None until it is made."""
        return self._publisher

    async def publish(self, hint: WebhookHint) -> None:
        """Return once JetStream has stored the hint; a repeat of the same news has the same event id."""
        if self._publisher is None:
            raise EventsUnavailable("nats is not connected; send the webhook again", retry_after=_RETRY_AFTER)
        if self._publishing >= MOST_PUBLISHING:
            raise EventsUnavailable("too many webhooks are being stored; send it again", retry_after=_RETRY_AFTER)
        publisher, event = self._publisher, self._event(hint)
        self._publishing += 1
        try:
            await effect("edge.webhook.publish", lambda: publisher.publish_event(event))
        except (ServiceUnavailable, FailpointError) as error:
            raise EventsUnavailable(
                "the webhook could not be stored; send it again", retry_after=_RETRY_AFTER
            ) from error
        finally:
            self._publishing -= 1

    def _event(self, hint: WebhookHint) -> Event:
        now = self._clock.now()
        return Event.of(
            hint_to_proto(hint, now),
            event_id=derived_event_id("kinguin webhook", *hint.identity),
            subject=SUBJECT,
            source=SOURCE,
            about=hint.supplier_order_id or hint.product_id,
            time=now,
        )


class NatsFacts:
    """Implements `FactSink`, over the connection of the webhooks."""

    def __init__(self, webhooks: NatsWebhooks) -> None:
        self._webhooks = webhooks

    async def tell(self, fact: Fact) -> None:
        """Return once JetStream has stored the fact; told again it has the same event id."""
        publisher = self._webhooks.publisher
        if publisher is None:
            raise EventsUnavailable("nats is not connected")
        event = Event.of(
            fact_to_proto(fact),
            event_id=derived_event_id("audit.recorded", SOURCE, fact.action, *fact.identity),
            subject=FACT_SUBJECT,
            source=SOURCE,
            about=fact.action,
            time=fact.time,
        )
        try:
            await effect("edge.fact.publish", lambda: publisher.publish_event(event))
        except (ServiceUnavailable, FailpointError) as error:
            raise EventsUnavailable("the fact could not be stored") from error
