"""Tells watchers of an order that it changed: one listener for the process, any number of streams."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from fulfillment.domain.model import Fulfillment, OrderId, State
from fulfillment.metrics import WATCHERS
from fulfillment.ports.orders import Orders

# A notification may be lost; a stream then lags by at most this.
LOOK_SECONDS = 15.0
# A stream ends after this long, so that clients spread over replicas again.
STREAM_SECONDS = 590.0
FINAL = frozenset({State.DELIVERED, State.REFUNDED})


class Watching:
    """Fans notifications out to the streams that wait for them."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._ended = False

    def changed(self, order_id: str) -> None:
        """Wake who watches an order; everybody when it is not said which changed."""
        for watched in [order_id] if order_id else list(self._waiting):
            for event in self._waiting.get(watched, ()):
                event.set()

    def end(self) -> None:
        """End every stream, as old ones end: its client opens another, at a replica that stays."""
        self._ended = True
        self.changed("")

    async def watch(self, order_id: OrderId) -> AsyncIterator[Fulfillment]:
        """Yield the fulfillment now and whenever it has changed, until nothing can change or the stream is old."""
        loop = asyncio.get_running_loop()
        end = loop.time() + STREAM_SECONDS
        seen = 0
        with self._registered(order_id) as event:
            while True:
                event.clear()
                async with self._orders.transaction() as transaction:
                    current = await transaction.load(order_id)
                if current is not None and current.version != seen:
                    seen = current.version
                    yield current
                if current is None or current.state in FINAL or self._ended or loop.time() >= end:
                    return
                await _wait(event, min(LOOK_SECONDS, max(end - loop.time(), 0.0)))

    @contextmanager
    def _registered(self, order_id: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting[order_id].add(event)
        WATCHERS.inc()
        try:
            yield event
        finally:
            WATCHERS.dec()
            self._waiting[order_id].discard(event)
            if not self._waiting[order_id]:
                del self._waiting[order_id]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
