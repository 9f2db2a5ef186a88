"""The shop of docs/examples against a real NATS: its durable consumer, restarts, a wiped stream, the process itself."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest
from chassis.events import Event
from chassis.jetstream import Publisher, connect_nats
from google.protobuf.message import Message
from keyferry.events.v1.fulfillment_events_pb2 import (
    FulfillmentAccepted,
    FulfillmentReady,
    FulfillmentRefunded,
    FulfillmentRefundRequested,
)
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed, PaymentRefunded
from keyferry.type.v1.money_pb2 import Money
from nats.aio.client import Client
from sandbox.servers.nats import NatsServer
from sandbox.shop import Purchase, paid_order

from docs.examples.follow_orders import following
from docs.examples.follow_orders.following import DURABLE, STREAM, follow_orders
from docs.examples.follow_orders.orders import Orders
from tests.integration.real_servers import REPOSITORY, eventually, fresh_streams

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AMOUNT = Money(currency_code="EUR", minor_units=1499)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits, so that a test sees in a second what takes a minute."""
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(following, "FETCH_SECONDS", 0.3)
    monkeypatch.setattr(following, "PAUSE_SECONDS", 0.1)


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Orders]:
    tables = Orders(tmp_path / "shop.sqlite3")
    yield tables
    tables.close()


class Provider:
    """Pays each request back once, whatever is asked how often."""

    def __init__(self) -> None:
        self.paid_back: dict[str, str] = {}

    async def pay_back(self, request: FulfillmentRefundRequested, _paid: PaymentConfirmed) -> str:
        return self.paid_back.setdefault(request.refund_request_id, f"refund-{len(self.paid_back)}")


@asynccontextmanager
async def shop(
    url: str, orders: Orders, provider: Provider | None = None, *, repeat_seconds: float = 0.5
) -> AsyncIterator[None]:
    """Run the shop's process."""
    client = await nats.connect(url, name="shop", max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    pay_back = (provider or Provider()).pay_back
    task = asyncio.create_task(follow_orders(client, orders, pay_back, repeat_seconds=repeat_seconds))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


def add(orders: Orders, *order_ids: str) -> None:
    for order_id in order_ids:
        orders.add(paid_order("alice", Purchase("product-1"), order_id=order_id, now=NOW))


def an_event(subject: str, message: Message, event_id: str) -> Event:
    return Event.of(message, event_id=event_id, subject=subject, source="fulfillment", about="it", time=NOW)


def ready(*order_ids: str) -> Sequence[Event]:
    return [an_event("fulfillment.ready", FulfillmentReady(order_id=each), f"ready-{each}") for each in order_ids]


async def publish(url: str, events: Sequence[Event]) -> None:
    async with connect_nats(url, name="fulfillment") as client:
        for event in events:
            await Publisher(client).publish_event(event)


async def messages(client: Client, stream: str) -> list[Event]:
    """Return everything that a stream holds."""
    context = client.jetstream()
    found = []
    for sequence in range(1, (await context.stream_info(stream)).state.last_seq + 1):
        message = await context.get_msg(stream, sequence)
        found.append(Event.parse(subject=message.subject or "", headers=message.headers, data=message.data or b""))
    return found


def ready_orders(orders: Orders) -> Counter[str]:
    rows = orders.database.execute("SELECT order_id FROM status_change WHERE status = 'ready'")
    return Counter(order_id for (order_id,) in rows)


async def until_ready(orders: Orders, *order_ids: str) -> None:
    async def are_ready() -> bool:
        return ready_orders(orders).keys() == set(order_ids)

    await eventually(are_ready, seconds=40)
    assert ready_orders(orders) == Counter(order_ids)


async def test_a_payment_is_told_under_new_ids_until_it_is_accepted(streams: str, orders: Orders) -> None:
    add(orders, "S-1")
    async with connect_nats(streams, name="test") as client, shop(streams, orders):

        async def told_twice() -> bool:
            return len(await messages(client, "PAYMENTS")) >= 2

        await eventually(told_twice)
        accepted = FulfillmentAccepted(order_id="S-1", payment_id="pay-S-1", provider="sandbox-pay")
        await publish(streams, [an_event("fulfillment.accepted", accepted, "accepted-1")])

        async def stopped() -> bool:
            return not orders.payments_to_tell(float("inf"))

        await eventually(stopped)
        told = await messages(client, "PAYMENTS")
    assert len({event.event_id for event in told}) == len(told)
    assert {event.subject for event in told} == {"payments.confirmed"}
    assert {event.about for event in told} == {"S-1"}
    (body,) = {event.data for event in told}
    assert PaymentConfirmed.FromString(body).payment.payment_id == "pay-S-1"


async def test_a_refund_that_is_asked_for_is_paid_back_once_and_told_until_it_is_taken(
    streams: str, orders: Orders
) -> None:
    add(orders, "S-1")
    provider = Provider()
    request = FulfillmentRefundRequested(order_id="S-1", refund_request_id="request-1", amount=AMOUNT)
    async with connect_nats(streams, name="test") as client:
        async with shop(streams, orders, provider):
            await publish(
                streams,
                [
                    an_event("fulfillment.refund_requested", request, "asked-1"),
                    an_event("fulfillment.refund_requested", request, "asked-2"),
                ],
            )

            async def told() -> bool:
                return any(event.subject == "payments.refunded" for event in await messages(client, "PAYMENTS"))

            await eventually(told)
            taken = FulfillmentRefunded(order_id="S-1", refund_id="refund-0", provider="sandbox-pay", amount=AMOUNT)
            await publish(streams, [an_event("fulfillment.refunded", taken, "taken-1")])

            async def stopped() -> bool:
                return not orders.refunds_to_tell(float("inf"))

            await eventually(stopped)
        refunds = [
            PaymentRefunded.FromString(event.data).refund
            for event in await messages(client, "PAYMENTS")
            if event.subject == "payments.refunded"
        ]
    assert provider.paid_back == {"request-1": "refund-0"}
    assert {(each.refund_id, each.payment_id, *each.refund_request_ids) for each in refunds} == {
        ("refund-0", "pay-S-1", "request-1")
    }


async def test_what_came_while_no_process_ran_is_taken_later(streams: str, orders: Orders) -> None:
    add(orders, "S-1", "S-2")
    await publish(streams, ready("S-1"))
    async with shop(streams, orders):
        await until_ready(orders, "S-1")
    await publish(streams, ready("S-2"))
    async with shop(streams, orders):
        await until_ready(orders, "S-1", "S-2")


async def test_two_processes_share_the_events(streams: str, orders: Orders, tmp_path: Path) -> None:
    order_ids = [f"S-{number}" for number in range(200)]
    add(orders, *order_ids)
    second = Orders(tmp_path / "shop.sqlite3")
    try:
        # Both share one loop here: told again and again, so many payments would leave it no time for events.
        async with shop(streams, orders, repeat_seconds=60), shop(streams, second, repeat_seconds=60):
            await publish(streams, ready(*order_ids))
            await until_ready(orders, *order_ids)
    finally:
        second.close()


async def test_it_goes_on_after_nats_was_started_again(own_nats_server: NatsServer, orders: Orders) -> None:
    url = await fresh_streams(own_nats_server)
    add(orders, "S-1", "S-2", "S-3")
    async with shop(url, orders):
        await publish(url, ready("S-1"))
        await until_ready(orders, "S-1")
        for number in (2, 3):
            own_nats_server.stop()
            own_nats_server.start()
            await publish(url, ready(f"S-{number}"))
            await until_ready(orders, *(f"S-{each}" for each in range(1, number + 1)))


async def test_after_its_stream_was_wiped_it_makes_its_consumer_anew_and_takes_nothing_twice(
    nats_server: NatsServer, streams: str, orders: Orders
) -> None:
    add(orders, "S-1", "S-2")
    async with connect_nats(streams, name="test") as client, shop(streams, orders):
        await publish(streams, ready("S-1"))
        await until_ready(orders, "S-1")
        await fresh_streams(nats_server)
        # As the relay does: what was told before is told again.
        await publish(streams, ready("S-1", "S-2"))
        await until_ready(orders, "S-1", "S-2")

        async def all_acknowledged() -> bool:
            info = await client.jetstream().consumer_info(STREAM, DURABLE)
            return not info.num_pending and not info.num_ack_pending

        await eventually(all_acknowledged)
    assert ready_orders(orders) == Counter(["S-1", "S-2"])


async def test_the_process_runs_as_it_is_copied(streams: str, orders: Orders, tmp_path: Path) -> None:
    add(orders, "S-1")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "follow_orders",
        str(tmp_path / "shop.sqlite3"),
        cwd=REPOSITORY / "docs" / "examples",
        env={**os.environ, "NATS_URL": streams},
    )
    try:
        await publish(streams, ready("S-1"))
        await until_ready(orders, "S-1")
    finally:
        process.kill()
        await process.wait()
