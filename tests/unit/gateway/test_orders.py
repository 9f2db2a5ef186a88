"""The customer API."""

import json
import uuid
from dataclasses import replace
from typing import Any

import grpc
import httpx
import pytest
from chassis.errors import FieldViolation, KeyferryError, RemoteError
from gateway.domain.order import Key, State
from joserfc import jwe
from joserfc.jwk import OctKey

from tests.unit.gateway.edge_fakes import START, World, an_order, down, one_time_key

KEY = "/v1/orders/order-1/keys/key-order-1-1"
ALGORITHMS = ["ECDH-ES+A256KW", "A256GCM", "dir"]


async def test_orders_come_in_pages(world: World, client: httpx.AsyncClient) -> None:
    for number in range(2, 6):
        world.fulfillments.put("alice", an_order(f"order-{number}"))
    seen: list[str] = []
    token = ""
    while True:
        response = await client.get("/v1/orders", params={"page_size": 2, "page_token": token}, headers=world.bearer())
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        seen += [order["order_id"] for order in response.json()["orders"]]
        token = response.json()["next_page_token"]
        if not token:
            break
    assert seen == [f"order-{number}" for number in range(1, 6)]


@pytest.mark.parametrize(
    ("query", "field"), [("page_size=0", "page_size"), ("page_size=101", "page_size"), ("page_size=x", "page_size")]
)
async def test_a_bad_page_size_names_its_field(world: World, client: httpx.AsyncClient, query: str, field: str) -> None:
    response = await client.get(f"/v1/orders?{query}", headers=world.bearer())
    assert response.status_code == 400
    assert response.json()["reason"] == "INVALID_REQUEST"
    assert response.json()["fields"][0]["field"] == field


@pytest.mark.parametrize("order_id", ["a%00b", "a%20b", "%C3%A9", "a" * 65])
async def test_an_odd_order_number_names_its_field(world: World, client: httpx.AsyncClient, order_id: str) -> None:
    response = await client.get(f"/v1/orders/{order_id}", headers=world.bearer())
    assert response.status_code == 400
    assert response.json()["fields"][0]["field"] == "order_id"


async def test_an_order_tells_its_progress(world: World, client: httpx.AsyncClient) -> None:
    order = (await client.get("/v1/orders/order-1", headers=world.bearer())).json()
    assert order["state"] == "READY"
    assert order["total"] == {"currency_code": "EUR", "minor_units": 1999}
    assert [step["state"] for step in order["progress"]["steps"]] == ["done"] * 4
    assert order["lines"][0]["keys"][0]["key_id"] == "key-order-1-1"


async def test_the_actor_is_the_token_and_the_connection(world: World, client: httpx.AsyncClient) -> None:
    await client.get("/v1/orders/order-1", headers={**world.bearer(), "user-agent": "x" * 600})
    customer = world.fulfillments.customers[-1]
    assert (customer.customer_id, customer.email, customer.ip_address) == ("alice", "alice@example.test", "127.0.0.1")
    assert customer.user_agent == "x" * 512


@pytest.mark.parametrize(
    ("header", "told", "country"),
    [
        ("CF-IPCountry", "DE", "DE"),
        ("CF-IPCountry", "XX", ""),
        ("CF-IPCountry", "T1", ""),
        ("CF-IPCountry", "Germany", ""),
        ("", "DE", ""),
    ],
    ids=["told", "unknown", "tor", "no code", "not believed"],
)
async def test_the_country_is_what_a_believed_header_tells(world: World, header: str, told: str, country: str) -> None:
    world.country_header = header
    async with world.client() as client:
        await client.get("/v1/orders/order-1", headers={**world.bearer(), "cf-ipcountry": told})
    assert world.fulfillments.customers[-1].country_code == country


@pytest.mark.parametrize("path", ["/v1/orders/order-1", "/v1/orders/nope", "/v1/orders/order-1/events"])
async def test_somebody_elses_order_is_no_order(world: World, client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path, headers=world.bearer(sub="bob"))
    assert response.status_code == 404
    assert response.json()["reason"] == "ORDER_NOT_FOUND"


async def test_nobody_is_told_to_log_in(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/orders", headers={"accept": "text/html"})
    assert response.status_code == 401
    assert response.json()["reason"] == "LOGIN_REQUIRED"
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_download_link_opens_the_key(world: World, client: httpx.AsyncClient) -> None:
    private, public = one_time_key()
    response = await client.post(f"{KEY}/download-link", json={"recipient_jwk": public}, headers=world.bearer())
    link = response.json()
    assert set(link) == {"url", "expire_time", "content_key_jwe", "object_sha256"}
    assert response.headers["cache-control"] == "no-store"
    content_key = jwe.decrypt_compact(link["content_key_jwe"], private, ALGORITHMS).plaintext
    sealed = world.fulfillments.objects["key-order-1-1"]
    assert jwe.decrypt_compact(sealed, OctKey.import_key(content_key or b""), ALGORITHMS).plaintext == b"AAAA-BBBB-CCCC"


async def test_a_reveal_is_readable_by_the_asker_only(world: World, client: httpx.AsyncClient) -> None:
    private, public = one_time_key()
    response = await client.post(f"{KEY}/reveal", json={"recipient_jwk": public}, headers=world.bearer())
    assert "AAAA" not in response.text
    opened = jwe.decrypt_compact(response.json()["key_jwe"], private, ALGORITHMS)
    assert opened.plaintext == b"AAAA-BBBB-CCCC"
    assert opened.headers()["cty"] == "text/plain"


async def test_the_idempotency_key_becomes_the_request_id(world: World, client: httpx.AsyncClient) -> None:
    _, public = one_time_key()
    mine = str(uuid.uuid4())
    for headers in ({"idempotency-key": mine.upper()}, {}):
        sent = {**world.bearer(), **headers}
        assert (await client.post(f"{KEY}/reveal", json={"recipient_jwk": public}, headers=sent)).status_code == 200
    first, second = world.fulfillments.requests
    assert first.request_id == mine
    assert uuid.UUID(second.request_id) != uuid.UUID(mine)
    bad = {**world.bearer(), "idempotency-key": "once"}
    response = await client.post(f"{KEY}/reveal", json={"recipient_jwk": public}, headers=bad)
    assert response.status_code == 400
    assert response.json()["fields"][0]["field"] == "Idempotency-Key"


async def test_what_is_passed_on_is_the_canonical_public_key(world: World, client: httpx.AsyncClient) -> None:
    _, public = one_time_key()
    body = {"recipient_jwk": {**public, "ext": True, "key_ops": [], "kid": "x"}}
    assert (await client.post(f"{KEY}/reveal", json=body, headers=world.bearer())).status_code == 200
    passed = json.loads(world.fulfillments.requests[0].recipient_jwk)
    assert passed == public


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"d": "AAAA"}, "recipient_jwk.d"),
        ({"kty": "RSA"}, "recipient_jwk.kty"),
        ({"kty": None}, "recipient_jwk.kty"),
        ({"crv": "P-384"}, "recipient_jwk.crv"),
        ({"crv": "secp256k1"}, "recipient_jwk.crv"),
        ({"x": "AAAA"}, "recipient_jwk.x"),
        ({"x": 7}, "recipient_jwk.x"),
        ({"y": "=" * 43}, "recipient_jwk.y"),
        ({"y": "A" * 44}, "recipient_jwk.y"),
        ({"x": "_" * 42 + "8"}, "recipient_jwk.x"),
        ({"x": "A" * 42 + "B"}, "recipient_jwk.x"),
        ({"y": "A" * 43}, "recipient_jwk"),
        ({"x": "A" * 43, "y": "A" * 43}, "recipient_jwk"),
        ({"k": "AAAA"}, "recipient_jwk"),
    ],
)
@pytest.mark.parametrize("action", ["download-link", "reveal"])
async def test_a_bad_public_key_opens_nothing(
    world: World, client: httpx.AsyncClient, change: dict[str, Any], field: str, action: str
) -> None:
    _, public = one_time_key()
    response = await client.post(
        f"{KEY}/{action}", json={"recipient_jwk": {**public, **change}}, headers=world.bearer()
    )
    assert response.status_code == 400
    assert response.json()["reason"] == "INVALID_REQUEST"
    assert response.json()["fields"][0]["field"] == field
    assert world.fulfillments.requests == []


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (b"{", "MALFORMED_BODY", "body"),
        (b"\xff", "MALFORMED_BODY", "body"),
        (b"", "INVALID_REQUEST", "body"),
        (b"[]", "INVALID_REQUEST", "body"),
        (b"{}", "INVALID_REQUEST", "recipient_jwk"),
        (b'{"recipient_jwk": "x"}', "INVALID_REQUEST", "recipient_jwk"),
        (b'{"recipient_jwk": {}, "more": 1}', "INVALID_REQUEST", "more"),
        (b'{"recipient_jwk": {}, "\\ud800": 1}', "INVALID_REQUEST", "body"),
        (b'{"recipient_jwk": {"\\ud800": 1}}', "INVALID_REQUEST", "recipient_jwk.kty"),
        (b"[" * 60_000, "MALFORMED_BODY", "body"),
        (b'{"recipient_jwk": ' * 3000, "MALFORMED_BODY", "body"),
        (b'{"recipient_jwk": ' + b"9" * 5000 + b"}", "MALFORMED_BODY", "body"),
    ],
)
async def test_broken_bodies_name_reason_and_field(
    world: World, client: httpx.AsyncClient, body: bytes, reason: str, field: str
) -> None:
    headers = {**world.bearer(), "content-type": "application/json"}
    response = await client.post(f"{KEY}/reveal", content=body, headers=headers)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["reason"] == reason
    assert response.json()["fields"][0]["field"] == field


async def test_two_megabytes_are_too_large(world: World, client: httpx.AsyncClient) -> None:
    response = await client.post(f"{KEY}/reveal", content=b"x" * 2_000_000, headers=world.bearer())
    assert response.status_code == 413
    assert response.json()["reason"] == "BODY_TOO_LARGE"
    assert response.json()["metadata"] == {"maximum_bytes": "65536"}


REMOTE = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "status", "told"),
    [
        (REMOTE.INVALID_ARGUMENT, "INVALID_REQUEST", 400, True),
        (REMOTE.NOT_FOUND, "KEY_NOT_FOUND", 404, True),
        (REMOTE.ALREADY_EXISTS, "REQUEST_ID_REUSED", 409, True),
        (REMOTE.FAILED_PRECONDITION, "KEY_HELD", 409, True),
        (REMOTE.ABORTED, "RETRY_LATER", 409, True),
        (REMOTE.RESOURCE_EXHAUSTED, "TOO_BUSY", 429, True),
        (REMOTE.UNAVAILABLE, "AUDIT_UNAVAILABLE", 503, True),
        (REMOTE.UNAVAILABLE, "SERVICE_UNAVAILABLE", 503, False),
        (REMOTE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 504, False),
        (REMOTE.PERMISSION_DENIED, "METHOD_NOT_ALLOWED", 500, False),
        (REMOTE.UNAUTHENTICATED, "IDENTITY_UNKNOWN", 500, False),
        (REMOTE.INTERNAL, "INTERNAL", 500, False),
        (REMOTE.DATA_LOSS, "KEY_CORRUPTED", 500, True),
        (REMOTE.UNKNOWN, "UNKNOWN", 500, False),
    ],
)
async def test_errors_behind_the_edge_keep_their_reason_or_stay_inside(
    world: World, client: httpx.AsyncClient, *, code: grpc.StatusCode, reason: str, status: int, told: bool
) -> None:
    world.fulfillments.failure = RemoteError(
        "ipv4:10.0.0.7 said no",
        code=code,
        reason=reason,
        metadata={"a": "b"},
        field_violations=[FieldViolation("order_id", "is odd")],
    )
    response = await client.get("/v1/orders/order-1", headers=world.bearer())
    problem = response.json()
    assert response.status_code == problem["status"] == status
    assert problem["reason"] == ("INTERNAL" if status == 500 and not told else reason)
    assert problem["type"] == f"urn:keyferry:reason:{problem['reason']}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert ("10.0.0.7" in response.text) is told
    assert ("fields" in problem) is (status != 500 or told)
    assert ("retry-after" in response.headers) is (status in (503, 504))


@pytest.mark.parametrize("error", [RuntimeError("secret"), ValueError("secret"), KeyferryError("secret")])
async def test_a_fault_of_ours_tells_nothing(world: World, client: httpx.AsyncClient, error: Exception) -> None:
    world.fulfillments.failure = error
    response = await client.get("/v1/orders/order-1", headers=world.bearer())
    assert response.status_code == 500
    assert response.json()["reason"] == "INTERNAL"
    assert "secret" not in response.text
    assert response.headers["content-security-policy"]


async def test_a_known_wait_is_told(world: World, client: httpx.AsyncClient) -> None:
    world.fulfillments.failure = down()
    response = await client.get("/v1/orders", headers=world.bearer())
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v1/nope", 404, "ROUTE_UNKNOWN"),
        ("GET", "/v1/orders/", 404, "ROUTE_UNKNOWN"),
        ("DELETE", "/v1/orders", 405, "METHOD_UNSUPPORTED"),
        ("GET", "/webhooks/kinguin", 405, "METHOD_UNSUPPORTED"),
        ("GET", f"{KEY}/reveal", 405, "METHOD_UNSUPPORTED"),
        ("GET", f"{KEY}/download-link", 405, "METHOD_UNSUPPORTED"),
        ("HEAD", f"{KEY}/reveal", 405, "METHOD_UNSUPPORTED"),
    ],
)
async def test_unknown_addresses_and_methods(
    world: World, client: httpx.AsyncClient, *, method: str, path: str, status: int, reason: str
) -> None:
    response = await client.request(method, path, headers=world.bearer())
    assert response.status_code == status
    if method != "HEAD":
        assert response.json()["reason"] == reason
    assert ("allow" in response.headers) is (status == 405)
    assert world.fulfillments.requests == []


async def test_limits_are_told_and_held() -> None:
    world = World(limits={"customer": "3/minute", "open_key": "1/minute", "address": "7/minute"})
    world.fulfillments.put("alice", an_order())
    _, public = one_time_key()
    async with world.client() as client:
        first = await client.get("/v1/orders", headers=world.bearer())
        assert first.headers["ratelimit-policy"] == '"customer";q=3;w=60'
        assert first.headers["ratelimit"].startswith('"customer";r=2;t=')
        codes = [
            (await client.post(f"{KEY}/reveal", json={"recipient_jwk": public}, headers=world.bearer())).status_code
            for _ in range(2)
        ]
        assert codes == [200, 429]
        refused = await client.get("/v1/orders", headers=world.bearer())
        assert refused.status_code == 429
        assert refused.json()["reason"] == "RATE_LIMITED"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["ratelimit"].startswith('"customer";r=0;t=')
        assert (await client.get("/v1/orders", headers=world.bearer(sub="bob"))).status_code == 200
        statuses = {(await client.get("/v1/orders")).status_code for _ in range(4)}
        assert statuses == {401, 429}


async def test_a_partly_arrived_order_says_what_is_missing(world: World, client: httpx.AsyncClient) -> None:
    order = an_order("order-9", State.AWAITING_KEYS, keys=1, quantity=3)
    opened = Key("k", "image/png", START, START)
    world.fulfillments.put("alice", replace(order, lines=(replace(order.lines[0], keys=(opened,)),)))
    line = (await client.get("/v1/orders/order-9", headers=world.bearer())).json()["lines"][0]
    assert line["note"] == "1 of 3 keys here"
    assert line["pending"] == "2 keys on the way"


async def test_the_openapi_document_is_complete(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        "/webhooks/kinguin",
        "/v1/orders",
        "/v1/orders/{order_id}",
        "/v1/orders/{order_id}/events",
        "/v1/orders/{order_id}/keys/{key_id}/download-link",
        "/v1/orders/{order_id}/keys/{key_id}/reveal",
        "/v1/audit/checkpoint",
    }
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert all("422" not in operation["responses"] and "503" in operation["responses"] for operation in operations)
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]
