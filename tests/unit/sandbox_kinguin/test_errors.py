import json
from decimal import Decimal
from typing import get_args

import httpx
import pytest
from sandbox.kinguin.garbling import HUGE_BYTES
from sandbox.kinguin.mischief import _FIELDS, OPERATIONS, Action, Operation
from sandbox.kinguin.problems import ProblemKind

from tests.unit.sandbox_kinguin.simulated_supplier import World, kind, product


async def test_k62_k63_every_failure_has_a_kind_and_a_trace(world: World) -> None:
    problem = (await world.api.get("/v1/order/none")).json()
    assert (problem["kind"], problem["status"], problem["method"]) == ("OrderNotFound", 404, "GET")
    assert len(problem["trace"]) == 10
    assert problem["path"] == "/esa/api/v1/order/none"


async def test_bodies_are_bounded_and_json(world: World) -> None:
    async def send(content: bytes, content_type: str = "application/json") -> tuple[int, str]:
        return kind(await world.api.post("/v2/order", content=content, headers={"Content-Type": content_type}))

    assert await send(b" " * 300_000) == (413, "Http")
    assert await send(b"{}", "text/plain") == (415, "Http")
    for broken in (b"", b"{", b"[" * 100_000, b'{"products": NaN}', b"9" * 5000, b"\xff"):
        assert await send(broken) == (400, "ConstraintViolation")


async def call(world: World, operation: Operation) -> httpx.Response:
    order_id = "none"
    requests = {
        "getBalance": ("GET", "/v1/balance"),
        "getProduct": ("GET", f"/v2/products/{product('01')}"),
        "searchProducts": ("GET", "/v1/products"),
        "placeOrder": ("POST", "/v2/order"),
        "getOrder": ("GET", f"/v1/order/{order_id}"),
        "searchOrders": ("GET", "/v1/order"),
        "listKeys": ("GET", f"/v2/order/{order_id}/keys"),
        "returnKeys": ("POST", f"/v2/order/{order_id}/keys/return"),
    }
    method, path = requests[operation]
    body = {"products": [{"productId": product("01"), "qty": 1, "price": 8}]}
    return await world.api.request(method, path, json=body if operation == "placeOrder" else None)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_k63_each_of_the_thirteen_kinds_can_be_had_of_each_operation(world: World, operation: Operation) -> None:
    assert len(get_args(ProblemKind)) == 13
    for problem in get_args(ProblemKind):
        for status in (307, 400, 404, 409, 422, 429, 500, 503, 599):
            await world.fault("status", operation=operation, kind=problem, status=status, count=1)
            assert kind(await call(world, operation)) == (status, problem)
            await world.control.delete("/faults")
    assert await world.sold() == {}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_k63_an_unknown_path_and_a_wrong_method_are_http(world: World, operation: Operation) -> None:
    assert kind(await world.api.get(f"/v3/{operation}")) == (404, "Http")
    for path in ("/v1/balance", "/v2/order", "/v1/order", "/v1/products"):
        assert kind(await world.api.delete(path)) == (405, "Http")


async def test_k64_a_clear_no_bought_nothing(world: World) -> None:
    refused = [
        await world.order(qty=10),
        await world.api.post("/v2/order", json={"products": []}, headers={"X-Api-Key": "other"}),
        await world.order("07", line={"keyType": "text"}),
        await world.order("09"),
        await world.order(price=1),
    ]
    await world.control.post("/balance", json={"balance": "1"})
    refused.append(await world.order())
    assert {response.json()["kind"] for response in refused} == {
        "ConstraintViolation",
        "Authorization",
        "Preorder",
        "ProductUnavailable",
        "InsufficientBalance",
    }
    assert await world.sold() == {}
    assert await world.balance() == 1


@pytest.mark.parametrize("status", [404, 409, 423, 429, 500, 502, 504])
async def test_k64_any_other_answer_may_hide_an_order(world: World, status: int) -> None:
    await world.fault("status", operation="placeOrder", status=status, when="after", count=1)
    assert (await world.order(orderExternalId="hidden")).status_code == status
    assert len(await world.found("hidden")) == 1


async def test_k64_a_cut_connection_may_hide_an_order(world: World) -> None:
    await world.fault("drop_answer", operation="placeOrder", count=1)
    with pytest.raises(ConnectionResetError):
        await world.order(orderExternalId="hidden")
    await world.fault("reset_before", operation="placeOrder", count=1)
    with pytest.raises(ConnectionResetError):
        await world.order(orderExternalId="none")
    assert (len(await world.found("hidden")), await world.found("none")) == (1, [])


async def test_k3_k64_a_body_that_nobody_can_read_may_hide_an_order(world: World) -> None:
    for number, shape in enumerate(("html", "empty", "truncated", "null", "mislabeled", "huge")):
        await world.fault("garble", operation="placeOrder", body=shape, count=1)
        response = await world.order(orderExternalId=f"hidden-{number}")
        assert response.status_code == 201
        assert readable(response) == (shape == "huge")
        assert len(await world.found(f"hidden-{number}")) == 1


def readable(response: httpx.Response) -> bool:
    try:
        return "orderId" in response.json() and response.headers["content-type"] == "application/json"
    except (ValueError, TypeError):
        return False


async def test_k3_bodies_of_failures_vary(world: World) -> None:
    async def failure(shape: str) -> httpx.Response:
        await world.fault("status", operation="getBalance", status=502, kind="Http", retry_after=3, body=shape, count=1)
        response = await world.api.get("/v1/balance")
        assert (response.status_code, response.headers["Retry-After"]) == (502, "3")
        return response

    assert (await failure("type")).json().keys() == {*PROBLEM, "type"}
    assert (await failure("kindless")).json().keys() == {*PROBLEM, "title"} - {"kind"}
    assert (await failure("html")).text.startswith("<!DOCTYPE html>")
    assert (await failure("empty")).content == b""
    assert (await failure("null")).json() is None
    assert len((await failure("huge")).content) > HUGE_BYTES
    assert (await failure("mislabeled")).headers["content-type"].startswith("text/html")
    with pytest.raises(json.JSONDecodeError):
        (await failure("truncated")).json()


PROBLEM = {"kind", "status", "detail", "path", "method", "trace", "timestamp"}


async def test_a_body_may_come_a_few_bytes_at_a_time(world: World) -> None:
    await world.fault("drip", operation="searchProducts", seconds=0, count=1)
    dripped, whole = [await world.api.get("/v1/products") for _ in range(2)]
    assert dripped.content == whole.content


async def test_k65_the_balance_is_a_float(world: World) -> None:
    await world.control.post("/balance", json={"balance": "12.449999"})
    assert (await world.api.get("/v1/balance")).json() == {"balance": 12.449999}
    await world.bought()
    assert await world.balance() == Decimal("4.959999")
    await world.control.post("/balance", json={"balance": "7.489999"})
    assert kind(await world.order()) == (422, "InsufficientBalance")


async def test_a_rule_refuses_the_fields_of_another(world: World) -> None:
    assert set(_FIELDS) <= set(get_args(Action))
    for wrong in ({"action": "lock", "seconds": 3}, {"action": "commit_late"}, {"action": "webhooks", "mode": "odd"}):
        assert (await world.control.post("/faults", json=wrong)).status_code == 400
