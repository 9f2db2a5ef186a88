"""What the supplier answers, seen by the order: refused, in doubt, and parked until buying goes on. docs/errors.md."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.channel import open_channel
from chassis.tls import TlsFiles
from keyferry.kinguin.v1.kinguin_service_pb2 import ResumeBuyingRequest
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceStub
from keyferry.type.v1.actor_pb2 import ACTOR_TYPE_ADMIN, Actor
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase

from tests.e2e.system import System

SECONDS = 30.0
PRODUCT = PRODUCTS[0].product_id
NOT_FOR_GERMANY = next(product.product_id for product in PRODUCTS if "DE" in product.excluded_countries)
SOLD_OUT = next(
    product.product_id for product in PRODUCTS if not any(offer.text + offer.image for offer in product.offers)
)
ENOUGH = "1000000.00"


async def control(system: System, http: httpx.AsyncClient, path: str, body: object) -> None:
    answer = await http.post(f"{system.endpoints['kinguin_control']}/{path}", json=body)
    assert answer.is_success, answer.text


@asynccontextmanager
async def placing_answered(
    system: System, http: httpx.AsyncClient, status: int, kind: str, **more: object
) -> AsyncIterator[None]:
    rule = {"action": "status", "operation": "placeOrder", "status": status, "kind": kind, **more}
    await control(system, http, "faults", rule)
    try:
        yield
    finally:
        await http.delete(f"{system.endpoints['kinguin_control']}/faults")


async def until_reason(system: System, http: httpx.AsyncClient, order_id: str, reason: str) -> Mapping[str, Any]:
    orders: list[Mapping[str, Any]] = []

    async def has_reason() -> bool:
        orders.append(await system.customer(http, "alice").read_order(order_id))
        return bool(orders[-1]["reason"] == reason)

    await system.until_true(has_reason)
    return orders[-1]


@pytest.mark.parametrize(
    ("product_id", "price"),
    [(NOT_FOR_GERMANY, 9999), (SOLD_OUT, 9999), (PRODUCT, 1)],
    ids=["country", "stock", "price"],
)
async def test_what_can_be_seen_before_is_not_even_asked(
    system: System, http: httpx.AsyncClient, product_id: str, price: int
) -> None:
    asked = (await http.get(f"{system.endpoints['kinguin_control']}/requests")).json()["operations"]["placeOrder"]
    order_id = await system.pay("alice", Purchase(product_id, unit_price_cents=price))
    order = await system.until(http, "alice", order_id, "NEEDS_ATTENTION", seconds=SECONDS)
    assert order["reason"] == "PURCHASE_REFUSED"
    now = (await http.get(f"{system.endpoints['kinguin_control']}/requests")).json()["operations"]["placeOrder"]
    assert now == asked


async def test_a_clear_no_is_for_a_human(system: System, http: httpx.AsyncClient) -> None:
    async with placing_answered(system, http, 400, "ConstraintViolation"):
        order_id = await system.pay("alice", Purchase(PRODUCT))
        order = await system.until(http, "alice", order_id, "NEEDS_ATTENTION", seconds=SECONDS)
    assert order["reason"] == "PURCHASE_REFUSED"


async def test_a_no_that_may_pass_leads_to_another_attempt(system: System, http: httpx.AsyncClient) -> None:
    before = len(await system.sold(http))
    async with placing_answered(system, http, 422, "ProductUnavailable", count=1):
        order_id = await system.pay("alice", Purchase(PRODUCT))
        await system.until(http, "alice", order_id, "READY", seconds=SECONDS)
    assert len(await system.sold(http)) == before + 1
    (line,) = (await system.fulfillment(order_id)).lines
    refused, bought = sorted(line.purchases, key=lambda purchase: purchase.supplier_order_id)
    assert (refused.refusal, refused.supplier_order_id) == ("ProductUnavailable", "")
    assert bought.external_id != refused.external_id


@pytest.mark.parametrize(
    ("status", "kind", "more"),
    [
        (429, "Error", {"retry_after": 1}),
        (423, "ResourceLock", {}),
        (422, "OrderFailed", {}),
        (500, "Error", {"when": "after"}),
    ],
    ids=["429", "ResourceLock", "OrderFailed", "500 after the order was taken"],
)
async def test_a_doubt_settles_by_itself(
    system: System, http: httpx.AsyncClient, status: int, kind: str, more: dict[str, object]
) -> None:
    before = len(await system.sold(http))
    async with placing_answered(system, http, status, kind, count=1, **more):
        order_id = await system.pay("alice", Purchase(PRODUCT))
        await system.until(http, "alice", order_id, "READY", seconds=SECONDS)
    assert len(await system.sold(http)) == before + 1


async def test_without_money_orders_wait_and_are_bought_once_there_is_some(
    system: System, http: httpx.AsyncClient
) -> None:
    await control(system, http, "balance", {"balance": "0.10"})
    try:
        order_ids = [await system.pay("alice", Purchase(PRODUCT)) for _ in range(3)]
        for order_id in order_ids:
            assert (await until_reason(system, http, order_id, "BUYING_PAUSED"))["state"] == "PURCHASING"
    finally:
        await control(system, http, "balance", {"balance": ENOUGH})
    for order_id in order_ids:
        assert (await system.until(http, "alice", order_id, "READY", seconds=SECONDS))["reason"] == ""


async def resume_buying(system: System) -> None:
    identity = Path(system.endpoints["identities"]["edge"]["cert"]).parent
    address = [system.endpoints["grpc"]["kinguin"]]
    operator = Actor(type=ACTOR_TYPE_ADMIN, id="carol")
    request = ResumeBuyingRequest(request_id=str(uuid.uuid4()), actor=operator, reason="the key was renewed")
    async with open_channel(address, peer="kinguin-gateway", tls=TlsFiles(identity)) as channel:
        await KinguinServiceStub(channel).ResumeBuying(request)


async def test_who_is_not_let_in_stops_buying_until_an_operator_has_mended_it(
    system: System, http: httpx.AsyncClient
) -> None:
    async with placing_answered(system, http, 401, "Authorization"):
        order_id = await system.pay("alice", Purchase(PRODUCT))
        await until_reason(system, http, order_id, "BUYING_PAUSED")
    await resume_buying(system)
    assert (await system.until(http, "alice", order_id, "READY", seconds=SECONDS))["reason"] == ""
