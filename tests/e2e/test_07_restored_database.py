"""Fulfillment's database is lost and comes back as it was before the orders. The shop repeats itself; nothing else."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import httpx
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase, new_order_id, paid_order, tell_paid

from tests.e2e.system import ACCEPT_SECONDS, System, keys_of

PRODUCT = PRODUCTS[0].product_id
# More keys than one purchase may have, so that there are two, and some single ones.
QUANTITIES = (12, 1, 1, 2)
COPY = "fulfillment_an_hour_ago"


async def command(system: System, *statements: str) -> None:
    connection = await asyncpg.connect(system.endpoints["database"])
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


# Only a database that nobody uses can be copied or dropped.
KEEP_AWAY = (
    "ALTER DATABASE fulfillment ALLOW_CONNECTIONS false",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'fulfillment'",
)


async def take_copy(system: System) -> None:
    await command(
        system,
        f"DROP DATABASE IF EXISTS {COPY}",
        *KEEP_AWAY,
        f"CREATE DATABASE {COPY} TEMPLATE fulfillment",
        "ALTER DATABASE fulfillment ALLOW_CONNECTIONS true",
    )


async def put_copy_back(system: System) -> None:
    await command(system, *KEEP_AWAY)
    for replica in system.replicas("fulfillment"):
        system.kill(replica)
    await command(
        system,
        "DROP DATABASE fulfillment WITH (FORCE)",
        f"CREATE DATABASE fulfillment TEMPLATE {COPY} OWNER fulfillment_migrator",
        "REVOKE ALL ON DATABASE fulfillment FROM PUBLIC",
        "GRANT CONNECT ON DATABASE fulfillment TO fulfillment_service",
        f"DROP DATABASE {COPY}",
    )


async def test_after_a_restore_every_order_is_ready_again_and_nothing_is_bought_twice(
    system: System, http: httpx.AsyncClient
) -> None:
    await take_copy(system)
    now = datetime.now(UTC)
    told = [
        paid_order("carol", Purchase(PRODUCT, quantity), order_id=new_order_id(now), now=now) for quantity in QUANTITIES
    ]
    nats_url = system.endpoints["nats"]

    async def all_ready() -> dict[str, list[str]]:
        """Tell of every payment until it is accepted, and return the keys of each order."""
        await asyncio.gather(*(tell_paid(nats_url, message, seconds=2 * ACCEPT_SECONDS) for message in told))
        order_ids = [message.payment.order_id for message in told]
        orders = [await system.until(http, "carol", order_id, "READY") for order_id in order_ids]
        return {order_id: sorted(keys_of(order)) for order_id, order in zip(order_ids, orders, strict=True)}

    keys = await all_ready()
    sold = await system.sold(http)

    await put_copy_back(system)

    assert await all_ready() == keys
    assert await system.sold(http) == sold
    for order_id, quantity in zip(keys, QUANTITIES, strict=True):
        assert len(keys[order_id]) == quantity
        opened = [await system.customer(http, "carol").open_key(order_id, key_id) for key_id in keys[order_id]]
        assert sorted(key.plaintext.decode() for key in opened) == sorted(await system.serials(http, order_id))
