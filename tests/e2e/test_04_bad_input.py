"""Whatever is wrong gets its documented error, with a reason and a field, and leaves nothing behind."""

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest
from chassis.errors import KeyferryError
from keyferry.fulfillment.v1.fulfillment_service_pb2 import GetFulfillmentRequest, SubmitOrderRequest
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceStub
from sandbox.endpoints import Endpoints
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase, new_order_id, open_as_shop, paid_order

from tests.e2e.system import System

if TYPE_CHECKING:
    from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceAsyncStub

PRODUCT = PRODUCTS[0].product_id
TWO_MEGABYTES = 2_000_000


def submission() -> SubmitOrderRequest:
    now = datetime.now(UTC)
    message = paid_order("alice", Purchase(PRODUCT), order_id=new_order_id(now), now=now)
    return SubmitOrderRequest(request_id=str(uuid.uuid4()), order=message.order, payment=message.payment)


def unknown_product(request: SubmitOrderRequest) -> None:
    request.order.items[0].product_id = "there-is-no-such-product"


def negative_quantity(request: SubmitOrderRequest) -> None:
    request.order.items[0].quantity = -1


def unknown_currency(request: SubmitOrderRequest) -> None:
    request.order.total.currency_code = "EURO"


def no_customer(request: SubmitOrderRequest) -> None:
    request.order.customer.customer_id = ""


@pytest.fixture
async def fulfillment(system: System) -> AsyncIterator["FulfillmentServiceAsyncStub"]:
    async with open_as_shop(Endpoints.read(system.layout), "fulfillment") as channel:
        yield FulfillmentServiceStub(channel)


@pytest.mark.parametrize(
    ("spoil", "reason", "field"),
    [
        (unknown_product, "PRODUCT_UNKNOWN", "order.items[0].product_id"),
        (negative_quantity, "INVALID_REQUEST", "order.items[0].quantity"),
        (unknown_currency, "INVALID_REQUEST", "order.total.currency_code"),
        (no_customer, "INVALID_REQUEST", "order.customer.customer_id"),
    ],
)
async def test_a_bad_order_is_refused_and_not_stored(
    fulfillment: "FulfillmentServiceAsyncStub", spoil: Callable[[SubmitOrderRequest], None], reason: str, field: str
) -> None:
    request = submission()
    spoil(request)
    with pytest.raises(KeyferryError) as refused:
        await fulfillment.SubmitOrder(request)
    assert refused.value.reason == reason
    assert field in [fault.field for fault in refused.value.field_violations]
    with pytest.raises(KeyferryError) as absent:
        await fulfillment.GetFulfillment(GetFulfillmentRequest(order_id=request.order.order_id))
    assert absent.value.reason == "ORDER_NOT_FOUND"


async def test_a_body_of_two_megabytes_is_too_large(system: System, http: httpx.AsyncClient) -> None:
    answer = await http.post(f"{system.endpoints['edge']}/webhooks/kinguin", content=b"x" * TWO_MEGABYTES)
    problem = answer.json()
    assert (answer.status_code, problem["reason"], problem["fields"][0]["field"]) == (413, "BODY_TOO_LARGE", "body")


async def test_broken_json_names_the_body(system: System, http: httpx.AsyncClient) -> None:
    answer = await http.post(
        f"{system.endpoints['edge']}/v1/orders/x/keys/y/download-link",
        content=b'{"recipient_jwk": ',
        headers={"authorization": f"Bearer {system.token('alice')}", "content-type": "application/json"},
    )
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (400, "MALFORMED_BODY")
    assert problem["fields"][0]["field"] == "body"


@pytest.mark.parametrize(
    "claims",
    [
        {"seconds": -60},
        {"issuer": "https://somebody-else.example"},
        {"audience": "another-shop"},
    ],
    ids=["expired", "foreign issuer", "foreign audience"],
)
async def test_a_token_that_is_not_for_us_is_refused(
    system: System, http: httpx.AsyncClient, claims: dict[str, str | int]
) -> None:
    token = system.token("alice", **claims)  # type: ignore[arg-type] # each case names one of its keywords
    answer = await http.get(f"{system.endpoints['edge']}/v1/orders", headers={"authorization": f"Bearer {token}"})
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (401, "TOKEN_INVALID")
    assert problem["fields"][0]["field"] == "authorization"


async def test_a_webhook_with_a_wrong_secret_is_refused(system: System, http: httpx.AsyncClient) -> None:
    answer = await http.post(
        f"{system.endpoints['edge']}/webhooks/kinguin",
        json={"orderId": "PHS84FJAG5U", "status": "completed", "updatedAt": "2026-01-01T00:00:00.000+00:00"},
        headers={"x-event-name": "order.status", "x-event-secret": "guessed"},
    )
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (401, "WEBHOOK_REFUSED")
    assert problem["fields"][0]["field"] == "x-event-secret"
