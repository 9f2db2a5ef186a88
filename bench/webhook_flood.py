"""What a flood of product.update webhooks about products that we never bought costs kinguin-gateway.

    .venv/bin/python bench/webhook_flood.py [events]

A real NATS and the real consumer, in one process; the database is never touched, which is the point. Beside it, in the
same run, its floor: fetching and acknowledging the same events with nothing in between. Prints the CPU of one event.
"""

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import sentinel

import nats
import yaml
from chassis.consumer import BATCH, Consumer
from chassis.events import Event, derived_event_id
from chassis.jetstream import Publisher, connect_nats
from chassis.streams import apply_streams
from keyferry.events.v1.kinguin_events_pb2 import KinguinWebhookReceived
from kinguin_gateway.consumer import CONSUMER, STREAM, WebhookTaker
from sandbox.servers.nats import NatsServer

REPOSITORY = Path(__file__).parents[1]
EVENTS = 20_000
SUBJECT = "kinguin.webhook.received"


async def publish(url: str, count: int) -> None:
    """Publish so many updates, each of a product of its own."""
    async with connect_nats(url, name="bench") as client:
        publisher = Publisher(client)
        for first in range(0, count, 500):
            await asyncio.gather(
                *(publisher.publish_event(an_update(n)) for n in range(first, min(first + 500, count)))
            )


def an_update(number: int) -> Event:
    """Return one event."""
    product = f"5c9b5f6b2539a4e8f1{number:06x}"
    body = KinguinWebhookReceived(
        event_name="product.update", product_id=product, updated_at="2026-10-16T11:24:08.025+00:00"
    )
    return Event.of(
        body,
        event_id=derived_event_id("bench", product),
        subject=SUBJECT,
        source="edge",
        about=product,
        time=datetime.now(UTC),
    )


async def pending(url: str) -> int:
    """Return how many events are still to be acknowledged."""
    client = await nats.connect(url)
    try:
        info = await client.jetstream().consumer_info(STREAM, CONSUMER)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)
    finally:
        await client.close()


async def bare(url: str) -> None:
    """Fetch and acknowledge, and nothing else."""
    async with connect_nats(url, name="floor") as client:
        subscription = await client.jetstream().pull_subscribe_bind(CONSUMER, stream=STREAM)
        while True:
            try:
                messages = await subscription.fetch(BATCH, timeout=0.5)
            except TimeoutError:
                return
            for message in messages:
                await message.ack()


async def consume(url: str) -> None:
    """Let the real consumer take everything."""
    database: Any = sentinel.database
    taker = WebhookTaker(sentinel.webhooks, lambda: None, is_known=lambda _product_id: False)
    async with connect_nats(url, name="gateway") as client:
        consumer = Consumer(client=client, database=database, stream=STREAM, name=CONSUMER, handlers=taker.handlers())
        running = asyncio.create_task(consumer.run())
        while await pending(url):  # noqa: ASYNC110 # another process has them
            await asyncio.sleep(0.2)
        running.cancel()


async def measure(url: str, work: Any, count: int) -> float:
    """Return microseconds of CPU for one event."""
    declared = yaml.safe_load((REPOSITORY / "deploy" / "nats" / "streams.yaml").read_text(encoding="utf-8"))
    client = await nats.connect(url)
    for stream in await client.jetstream().streams_info():
        await client.jetstream().delete_stream(stream.config.name or "")
    await client.close()
    await apply_streams(url, declared)
    await publish(url, count)
    began = time.process_time()
    await work(url)
    return (time.process_time() - began) / count * 1e6


async def main(count: int) -> None:
    """Measure both and print the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder), sync_always=False)
        server.start()
        try:
            floor = await measure(server.url, bare, count)
            ours = await measure(server.url, consume, count)
        finally:
            server.stop()
    print(f"{count} updates: {ours:.0f} us of CPU each, bare fetch and ack {floor:.0f} us, ratio {ours / floor:.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
