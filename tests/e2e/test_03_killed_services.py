"""Each service in turn is killed the hard way in the middle of orders. Nothing is lost, nothing is bought twice."""

import asyncio
from collections import Counter

import httpx
import pytest
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase

from tests.e2e.system import System, keys_of

ORDERS = 20
PRODUCT = PRODUCTS[0].product_id
SERVICES = ("fulfillment", "kinguin-gateway", "vault", "audit", "edge")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_killed_service_loses_nothing(system: System, http: httpx.AsyncClient, service: str) -> None:
    before = len(await system.sold(http))
    paying = [asyncio.create_task(system.pay("alice", Purchase(PRODUCT))) for _ in range(ORDERS)]

    async def under_way() -> bool:
        return len(await system.sold(http)) >= before + ORDERS // 5

    await system.until_true(under_way, every=0.02)
    for replica in system.replicas(service):
        system.kill(replica)
    order_ids = await asyncio.gather(*paying)
    orders = [await system.until(http, "alice", order_id, "READY") for order_id in order_ids]

    opened = Counter[str]()
    sold = Counter[str]()
    for order_id, order in zip(order_ids, orders, strict=True):
        for key_id in keys_of(order):
            opened[(await system.customer(http, "alice").open_key(order_id, key_id)).plaintext.decode()] += 1
        sold.update(await system.serials(http, order_id))
    assert len(opened) == ORDERS
    assert opened == sold


async def test_the_supplier_sold_exactly_what_was_ordered(system: System, http: httpx.AsyncClient) -> None:
    """Counts over everything that ran before: a second purchase that nobody adopted would show here."""
    references = Counter({order["external_id"]: len(order["keys"]) for order in await system.sold(http)})
    assert len(references) == len(await system.sold(http)), "one reference was sold twice"
    ordered = Counter[str]()
    page = await system.all_fulfillments()
    for fulfillment in page:
        for line in fulfillment.lines:
            for purchase in line.purchases:
                ordered[purchase.external_id] += purchase.quantity
    assert references == ordered
