"""Webhooks that the edge took. A webhook is a hint and the supplier's API is the truth: it only makes us ask earlier.

So duplicates, lies and wrong order do no harm, and nothing in a webhook is ever written onto a purchase.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from chassis.consumer import Handler
from chassis.database import after_commit
from chassis.events import Event
from keyferry.events.v1.kinguin_events_pb2 import KinguinWebhookReceived
from sqlalchemy.ext.asyncio import AsyncConnection

STREAM = "KINGUIN"
CONSUMER = "kinguin-gateway-webhooks"
# The names that are about an order (K54); older stores still send the second. `product.update` floods are not ours.
_ABOUT_ORDERS = frozenset({"order.status", "order.complete"})


class HurryLook(Protocol):
    """Makes the next look at a purchase due now, in the given transaction; False when none of ours is meant."""

    def __call__(self, connection: AsyncConnection, *, supplier_order_id: str, external_id: str) -> Awaitable[bool]:
        """Do it."""
        ...


class WebhookTaker:
    """Turns webhooks about orders into earlier looks."""

    def __init__(self, hurry: HurryLook, wake: Callable[[], None]) -> None:
        self._hurry = hurry
        self._wake = wake

    def handlers(self) -> Mapping[str, Handler[KinguinWebhookReceived]]:
        """Return what this consumer takes."""
        return {KinguinWebhookReceived.DESCRIPTOR.full_name: Handler(KinguinWebhookReceived, self.take)}

    async def take(self, _event: Event, body: KinguinWebhookReceived, connection: AsyncConnection) -> None:
        """Make the purchase it is about due for a look; an order that is not ours changes nothing."""
        if body.event_name not in _ABOUT_ORDERS:
            return
        is_ours = await self._hurry(connection, supplier_order_id=body.supplier_order_id, external_id=body.external_id)
        if is_ours:
            after_commit(connection, self._wake)
