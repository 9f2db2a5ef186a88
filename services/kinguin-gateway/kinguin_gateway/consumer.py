"""Webhooks that the edge took. A webhook is a hint and the supplier's API is the truth: it only makes us ask earlier.

So duplicates, lies and wrong order do no harm, and nothing in a webhook is ever written onto a purchase.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC

from chassis.consumer import Handler
from chassis.database import after_commit
from chassis.events import Event
from keyferry.events.v1.kinguin_events_pb2 import KinguinWebhookReceived
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.domain.webhook import ABOUT_ORDERS, ABOUT_PRODUCTS, Receipt, WebhookOutcome
from kinguin_gateway.metrics import WEBHOOKS_TAKEN
from kinguin_gateway.ports.webhooks import Webhooks

STREAM = "KINGUIN"
CONSUMER = "kinguin-gateway-webhooks"


class WebhookTaker:
    """Keeps webhooks and turns them into earlier looks."""

    def __init__(self, webhooks: Webhooks, wake: Callable[[], None], *, is_known: Callable[[str], bool]) -> None:
        """`is_known` tells whether a product was ever bought: the supplier sends updates for its whole catalogue."""
        self._webhooks = webhooks
        self._wake = wake
        self._is_known = is_known

    def handlers(self) -> Mapping[str, Handler[KinguinWebhookReceived]]:
        """Return what this consumer takes."""
        handler = Handler(KinguinWebhookReceived, self.take, group=self.take_group, wanted=self.wants)
        return {KinguinWebhookReceived.DESCRIPTOR.full_name: handler}

    def wants(self, body: KinguinWebhookReceived) -> bool:
        """Tell whether a webhook is worth a transaction."""
        if body.event_name == ABOUT_PRODUCTS:
            wanted = self._is_known(body.product_id)
        else:
            wanted = body.event_name in ABOUT_ORDERS
        if not wanted:
            WEBHOOKS_TAKEN.labels("ignored").inc()
        return wanted

    async def take(self, event: Event, body: KinguinWebhookReceived, connection: AsyncConnection) -> None:
        """Keep one webhook, and make what it is about due for a look."""
        if self.wants(body):
            await self.take_group([(event, body)], connection)

    async def take_group(
        self, events: Sequence[tuple[Event, KinguinWebhookReceived]], connection: AsyncConnection
    ) -> None:
        """Keep webhooks that came together."""
        receipts = [_receipt(event, body) for event, body in events]
        outcomes = await self._webhooks.take(connection, receipts)
        for outcome in outcomes:
            WEBHOOKS_TAKEN.labels(outcome.value).inc()
        if WebhookOutcome.HURRIED in outcomes:
            after_commit(connection, self._wake)


def _receipt(event: Event, body: KinguinWebhookReceived) -> Receipt:
    received = body.receive_time.ToDatetime(UTC) if body.HasField("receive_time") else event.time
    return Receipt(
        event_id=event.event_id,
        event_name=body.event_name,
        supplier_order_id=body.supplier_order_id,
        external_id=body.external_id,
        status=body.status,
        product_id=body.product_id,
        updated_at=body.updated_at,
        receive_time=received,
        body_sha256=body.body_sha256,
    )
