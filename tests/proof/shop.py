"""A shop under load: it tells of payments until they are accepted, and notes when it hears what of each order."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from chassis.events import Event, new_event_id
from chassis.jetstream import Publisher, connect_nats
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentAccepted,
    FulfillmentNeedsAttention,
    FulfillmentPurchased,
    FulfillmentReady,
)
from nats.aio.client import Client
from nats.aio.msg import Msg
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import SUBJECT, Purchase, new_order_id, paid_order

PRODUCT = PRODUCTS[0].product_id
REPEAT_SECONDS = 20.0


@dataclass
class Shop:
    """A shop with all of its open orders."""

    client: Client
    paid: dict[str, float] = field(default_factory=dict)
    heard: dict[type, dict[str, float]] = field(default_factory=dict)
    repeat_seconds: float = REPEAT_SECONDS

    @classmethod
    @asynccontextmanager
    async def opened(cls, nats_url: str, *, repeat_seconds: float = REPEAT_SECONDS) -> AsyncIterator["Shop"]:
        """Listen from now on."""
        async with connect_nats(nats_url, name="shop") as client:
            shop = cls(client, repeat_seconds=repeat_seconds)
            for name, kind in {
                "accepted": FulfillmentAccepted,
                "purchased": FulfillmentPurchased,
                "ready": FulfillmentReady,
                "needs_attention": FulfillmentNeedsAttention,
            }.items():
                await shop._hear(f"fulfillment.{name}", kind)
            yield shop

    async def _hear(self, subject: str, kind: type) -> None:
        known = self.heard.setdefault(kind, {})

        async def hear(message: Msg) -> None:
            known.setdefault(kind.FromString(message.data).order_id, time.monotonic())  # type: ignore[attr-defined] # an event

        await self.client.subscribe(subject, cb=hear)

    async def pay(self, customer: str = "alice", purchase: Purchase | None = None) -> str:
        """Tell of one paid order until it is accepted; return its number."""
        now = datetime.now(UTC)
        order_id = new_order_id(now)
        while order_id in self.paid:
            order_id = new_order_id(now)
        self.paid[order_id] = time.monotonic()
        message = paid_order(customer, purchase or Purchase(PRODUCT), order_id=order_id, now=now)
        while order_id not in self.heard[FulfillmentAccepted]:
            event = Event.of(
                message, event_id=new_event_id(), subject=SUBJECT, source="shop", about=order_id, time=datetime.now(UTC)
            )
            await Publisher(self.client).publish_event(event)
            for _ in range(int(self.repeat_seconds / 0.1)):
                if order_id in self.heard[FulfillmentAccepted]:
                    break
                await asyncio.sleep(0.1)
        return order_id

    def open_orders(self, order_ids: Iterable[str] | None = None) -> int:
        """Return how many orders, of these or of all, are not ready yet."""
        return len(set(self.paid if order_ids is None else order_ids) - self.heard[FulfillmentReady].keys())

    async def until_ready(self, seconds: float, order_ids: Sequence[str] | None = None) -> float:
        """Wait until every order, of these or of all, is ready; return how long that took."""
        begin = time.monotonic()
        while count := self.open_orders(order_ids):
            assert time.monotonic() < begin + seconds, f"{count} orders are not ready: {self.attention()}"
            await asyncio.sleep(0.1)
        return time.monotonic() - begin

    def attention(self) -> Sequence[str]:
        """Return the orders for which a human was asked."""
        return list(self.heard[FulfillmentNeedsAttention])

    def seconds(self, kind: type, order_id: str) -> float:
        """Return how long after its payment this was heard of an order."""
        return self.heard[kind][order_id] - self.paid[order_id]

    def slowest(self, kind: type) -> float:
        """Return how long it took at most."""
        return max(self.seconds(kind, order_id) for order_id in self.paid)
