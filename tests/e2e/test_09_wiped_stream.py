"""JetStream loses its whole store in the middle of orders. Our streams come back out of the outboxes, the shop repeats.

The shop is the example of docs/examples, as it is to be copied. With KEYFERRY_PROOF=full 500 orders, else few.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import httpx
import nats
import pytest
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentRefundRequested
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.layout import STREAMS
from sandbox.shop import Purchase, new_order_id, paid_order

from docs.examples.follow_orders.following import DURABLE, follow_orders
from docs.examples.follow_orders.orders import Orders
from tests.e2e.system import System

ORDERS = 500 if os.environ.get("KEYFERRY_PROOF") == "full" else 40
PRODUCT = PRODUCTS[0].product_id
# A real shop repeats every minute.
REPEAT_SECONDS = 3.0
# The relay looks for new streams every 30 s.
REBUILD_SECONDS = 120.0
APPLY_SECONDS = 60.0
READY_SECONDS = 240.0
# Whose outbox fills which streams.
OUTBOXES = {
    "fulfillment": ("FULFILLMENT", "AUDIT"),
    "kinguin": ("KINGUIN", "AUDIT"),
    "vault": ("VAULT", "AUDIT"),
}
# `fulfillment.ready` writes this column each time that it has its effect.
COUNT_EFFECTS = """
CREATE TABLE effect (order_id TEXT);
CREATE TRIGGER counted AFTER UPDATE OF attention ON paid_order BEGIN INSERT INTO effect VALUES (new.order_id); END;
"""
# Who must have handled what came again, before anything is counted.
CONSUMERS = {"FULFILLMENT": DURABLE, "AUDIT": "audit-recorder"}


@pytest.fixture
async def orders(system: System, tmp_path: Path) -> AsyncIterator[Orders]:
    """Give the tables of a shop whose process runs: it tells what is added, and follows."""
    tables = Orders(tmp_path / "shop.sqlite3")
    tables.database.executescript(COUNT_EFFECTS)
    client = await nats.connect(system.endpoints["nats"], name="shop", max_reconnect_attempts=-1)
    following = asyncio.create_task(follow_orders(client, tables, nothing_to_pay_back, repeat_seconds=REPEAT_SECONDS))
    yield tables
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await client.close()
    tables.close()


async def nothing_to_pay_back(_request: FulfillmentRefundRequested, _paid: PaymentConfirmed) -> str:
    raise AssertionError("nothing was refused")


def add(orders: Orders, count: int) -> list[str]:
    """Let customers pay for so many orders."""
    now = datetime.now(UTC)
    told = [paid_order("bob", Purchase(PRODUCT), order_id=new_order_id(now), now=now) for _ in range(count)]
    for paid in told:
        orders.add(paid)
    return [paid.payment.order_id for paid in told]


def count(orders: Orders, condition: str) -> int:
    (found,) = orders.database.execute(f"SELECT count(*) FROM paid_order WHERE {condition}").fetchone()  # noqa: S608 # ours
    return int(found)


async def wipe(system: System) -> None:
    """Take the store away under the running server, kill it, and declare the streams as the Job does."""
    store = system.layout.data("nats") / "store"
    store.rename(store.with_name(f"store-{system.endpoints['pids']['nats']}"))
    system.kill("nats")
    applying = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chassis.streams", str(STREAMS), env={**os.environ, "NATS_URL": system.endpoints["nats"]}
    )
    async with asyncio.timeout(APPLY_SECONDS):
        assert await applying.wait() == 0


@asynccontextmanager
async def database(system: System, name: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(system.endpoints["database"].rpartition("/")[0] + f"/{name}")
    try:
        yield connection
    finally:
        await connection.close()


async def told(system: System) -> Counter[str]:
    """Return how many events the outboxes hold for each stream."""
    found = Counter[str]()
    for name, streams in OUTBOXES.items():
        async with database(system, name) as connection:
            rows = await connection.fetch("SELECT stream, count(*) FROM outbox GROUP BY stream")
        found.update({row["stream"]: row["count"] for row in rows})
        assert {row["stream"] for row in rows} <= set(streams)
    return found


async def held(system: System, streams: Iterable[str]) -> Mapping[str, int]:
    """Return how many messages each stream holds."""
    client = await nats.connect(system.endpoints["nats"])
    try:
        context = client.jetstream()
        return {stream: (await context.stream_info(stream)).state.messages for stream in streams}
    finally:
        await client.close()


async def unhandled(system: System, stream: str, consumer: str) -> int:
    client = await nats.connect(system.endpoints["nats"])
    try:
        info = await client.jetstream().consumer_info(stream, consumer)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)
    finally:
        await client.close()


async def test_a_wiped_store_loses_nothing_and_doubles_nothing(
    system: System, http: httpx.AsyncClient, orders: Orders
) -> None:
    sold_before = {order["external_id"] for order in await system.sold(http)}
    order_ids = add(orders, ORDERS // 2)

    async def under_way() -> bool:
        return len(await system.sold(http)) >= len(sold_before) + ORDERS // 5

    await system.until_true(under_way, every=0.02, seconds=REBUILD_SECONDS)
    order_ids += add(orders, ORDERS - ORDERS // 2)
    before = await told(system)
    await wipe(system)

    for order_id in order_ids:
        await system.until(http, "bob", order_id, "READY", seconds=READY_SECONDS)

    async def shop_knows() -> bool:
        return count(orders, "status = 'ready' AND is_accepted") == ORDERS

    async def rebuilt() -> bool:
        held_now, told_now = await held(system, before), await told(system)
        return all(held_now[stream] >= told_now[stream] for stream in before)

    async def everything_handled() -> bool:
        return not [consumer for stream, consumer in CONSUMERS.items() if await unhandled(system, stream, consumer)]

    await system.until_true(shop_knows, seconds=REBUILD_SECONDS)
    await system.until_true(rebuilt, seconds=REBUILD_SECONDS)
    await system.until_true(everything_handled, seconds=REBUILD_SECONDS)

    check_the_shop(orders, order_ids)
    await check_the_ledger(system, http, order_ids, sold_before)
    accepted = Counter(entry.order_id for entry in await system.audit_entries() if entry.action == "order.accepted")
    assert {order_id: accepted[order_id] for order_id in order_ids} == dict.fromkeys(order_ids, 1)


def check_the_shop(orders: Orders, order_ids: list[str]) -> None:
    became_ready = orders.database.execute("SELECT order_id FROM status_change WHERE status = 'ready'")
    assert Counter(order_id for (order_id,) in became_ready) == Counter(order_ids)
    effects = orders.database.execute("SELECT order_id FROM effect")
    assert Counter(order_id for (order_id,) in effects) == Counter(order_ids)
    assert count(orders, "status = 'ready' AND attention = '' AND canceled_keys = 0") == ORDERS


async def check_the_ledger(
    system: System, http: httpx.AsyncClient, order_ids: list[str], sold_before: set[str]
) -> None:
    sold = [order for order in await system.sold(http) if order["external_id"] not in sold_before]
    ours = {fulfillment.order_id: fulfillment for fulfillment in await system.all_fulfillments()}
    bought = [
        (purchase.external_id, purchase.quantity)
        for order_id in order_ids
        for line in ours[order_id].lines
        for purchase in line.purchases
    ]
    assert len(bought) == ORDERS
    assert sorted((order["external_id"], len(order["keys"])) for order in sold) == sorted(bought)
